"""The text of a user's file, or what is wrong with the file, in words."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources.abc import Traversable
from pathlib import Path

from simulator.spec.errors import Problem, SpecError, nearest

MAX_BYTES = 4 * 2**20


def read_text(path: Path | Traversable, what: str, endings: Collection[str], *, most: int = MAX_BYTES) -> str:
    """The text of a file; ``what`` is needed, as in ``"a YAML file"``, and its name has one of ``endings``.

    Raises SpecError for a file that is missing (naming its neighbours), a directory, unreadable, larger than
    ``most`` bytes, or no UTF-8 text.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except FileNotFoundError:
        raise SpecError(
            Problem(file=file, rule="no such file", suggestion=_neighbours(path, endings))
        ) from None
    except IsADirectoryError:
        inside = [entry.name for entry in path.iterdir() if entry.name.endswith(tuple(endings))]
        rule = f"is a directory; {what} is needed"
        raise SpecError(Problem(file=file, rule=rule, suggestion=nearest("", sorted(inside)))) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise SpecError(Problem(file=file, rule=f"cannot be read: {reason}")) from None
    if len(data) > most:
        raise SpecError(Problem(file=file, rule=f"is larger than {most // 2**20} MiB"))
    return _decoded(data, file, what)


def _decoded(data: bytes, file: str, what: str) -> str:
    if b"\0" in data:
        raise SpecError(Problem(file=file, rule=f"is a binary file; {what} is needed"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        rule = f"is not UTF-8 text: byte 0x{data[error.start]:02x} on line {line}"
        raise SpecError(
            Problem(file=file, line=line, rule=rule, suggestion="save the file as UTF-8")
        ) from None


def _neighbours(path: Path | Traversable, endings: Collection[str]) -> str:
    """Files with a similar name beside a missing one."""
    if not isinstance(path, Path):
        return ""
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist either"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(tuple(endings)))
    found = nearest(path.name, names)
    return f"{found} in {folder}" if found else ""
