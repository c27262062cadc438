"""Result files: places that cannot be written are told before the work."""

import errno
import os
from pathlib import Path

import pytest

from reports.files import STDOUT, refuse_unusable


def test_places_that_can_be_written_or_made_are_accepted(tmp_path):
    there = tmp_path / "there.json"
    there.touch()
    refuse_unusable(
        (None, STDOUT, there, tmp_path / "new.json"), (None, tmp_path, tmp_path / "new" / "deeper")
    )
    refuse_unusable((Path(os.devnull),))
    assert sorted(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize(
    ("file", "folder", "code"),
    [
        ("nowhere/result.json", None, errno.ENOENT),
        (".", None, errno.EISDIR),
        ("there.json/result.json", None, errno.ENOTDIR),
        (None, "there.json", errno.ENOTDIR),
        (None, "there.json/plots", errno.ENOTDIR),
    ],
)
def test_places_that_cannot_be_written_are_told(tmp_path, file, folder, code):
    (tmp_path / "there.json").touch()
    with pytest.raises(OSError) as caught:
        refuse_unusable((file and tmp_path / file,), (folder and tmp_path / folder,))
    assert caught.value.errno == code
    assert str(tmp_path) in caught.value.filename
