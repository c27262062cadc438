"""One sweep per directory at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from simulator.spec.errors import Problem, SpecError

LOCK: Final = ".lock"


class DirectoryLock:
    """Held from its creation until :meth:`release` or the end of the process, however it ends.

    Raises SpecError where another process holds it.
    """

    def __init__(self, directory: Path) -> None:
        import fcntl  # noqa: PLC0415  POSIX only; nothing else here needs it

        self._stream = (directory / LOCK).open("a+", encoding="ascii")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stream.seek(0)
            holder = self._stream.read().strip()
            self._stream.close()
            rule = "another sweep is running in this directory" + (f" (process {holder})" if holder else "")
            raise SpecError(
                Problem(file=str(directory), rule=rule, suggestion="wait for it, or another -o DIR")
            ) from None
        self._stream.truncate(0)
        self._stream.write(f"{os.getpid()}\n")
        self._stream.flush()

    def release(self) -> None:
        """Lets others in."""
        self._stream.close()
