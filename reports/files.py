"""Writing result files: whole or not at all."""

from __future__ import annotations

import errno
import gzip
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

STDOUT = Path("-")
"""The file name that stands for standard output."""


def refuse_unusable(files: Iterable[Path | None], folders: Iterable[Path | None] = ()) -> None:
    """Find places where results could not be written before the work is done, not after.

    Raises OSError naming the first such place. None and :data:`STDOUT` are no places.
    """
    for file in filter(None, files):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        if file != STDOUT and not file.exists():
            _refuse_unusable_folder(file.resolve().parent, there=True)
    for folder in filter(None, folders):
        _refuse_unusable_folder(folder, there=False)


def _refuse_unusable_folder(folder: Path, *, there: bool) -> None:
    """A folder that is ``there``, or can be made, and can be written to."""
    if not there:
        folder = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not folder.exists():
        raise FileNotFoundError(errno.ENOENT, "the folder does not exist", str(folder))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Write a document to a file, or to standard output for ``-``. Raises OSError naming the file."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if path == STDOUT:
        sys.stdout.write(text)
        return
    with replacing(path) as stream:
        stream.write(text)


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text stream whose content replaces ``path`` when the block ends, and is dropped if the block raises.

    A name ending in ``.gz`` is compressed, without a time stamp, so that equal content gives equal bytes.
    Pipes and devices cannot be replaced and are written to as they stand. Raises OSError naming the file.
    """
    target = path.resolve()  # through a link: the link itself stays
    if target.exists() and not target.is_file():
        with _opened(target, path) as stream:
            yield stream
        return
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "the folder does not exist", str(path.parent))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with _opened(temporary, path) as stream:
            yield stream
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _opened(place: Path, asked: Path) -> Iterator[TextIO]:
    """Text written to ``place`` on the way to the file asked for, which is the one that errors name."""
    with ExitStack() as stack:
        try:
            stream: Any = stack.enter_context(place.open("wb"))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(asked)) from None
        if asked.suffix == ".gz":
            stream = stack.enter_context(gzip.GzipFile("", "wb", 6, stream, mtime=0))
        yield stack.enter_context(TextIOWrapper(stream, encoding="utf-8", newline="\n"))
