"""The one error for wrong input: what is wrong, where, and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

COMMAND_LINE: Final = "--set"  # the "file" of a value given on the command line
_LONGEST_VALUE = 120


class _Absent:
    """Stands for "no value to show", since None is a value."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with the input.

    ``file`` and ``line`` (1-based; 0: none) say where, ``key_path`` (``parallelism.tp``) and ``value`` what,
    ``rule`` what is allowed, ``suggestion`` the nearest valid choice. Any but ``rule`` may be left out.
    """

    file: str = ""
    line: int = 0
    key_path: str = ""
    value: object = ABSENT
    rule: str
    suggestion: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file and self.line else self.file
        value = "" if self.value is ABSENT else _shown(self.value)
        subject = ": ".join(part for part in (where, self.key_path, value) if part)
        if subject == where:  # nothing but the file, or not even that
            lines = [f"{subject}: {self.rule}" if subject else self.rule]
        else:
            lines = [subject, f"  rule: {self.rule}"]
        if self.suggestion:
            lines.append(f"  try:  {self.suggestion}")
        return "\n".join(lines)


class SpecError(Exception):
    """The input is wrong. Carries every problem found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise TypeError("a SpecError needs at least one Problem")
        super().__init__(*problems)
        self.problems: tuple[Problem, ...] = problems

    def __str__(self) -> str:
        return "\n\n".join(str(problem) for problem in self.problems)


def nearest(name: str, choices: Iterable[str], *, limit: int = 3, few: int = 12) -> str:
    """The valid names closest to a mistyped one; when none is close, all of them if they are ``few``."""
    names = list(dict.fromkeys(choices))
    folded = {choice.casefold(): choice for choice in reversed(names)}
    close = get_close_matches(name.casefold(), folded, n=limit, cutoff=0.6)
    if not close:
        part = name.casefold()
        close = [key for key in folded if part and key.startswith(part)]
        close += [key for key in folded if len(part) >= 3 and part in key[1:]]
    found = [folded[key] for key in close[:limit]]
    return listed(found) if found else (listed(names) if len(names) <= few else "")


def listed(names: Iterable[object]) -> str:
    """``a, b or c``."""
    words = [str(name) for name in names]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _shown(value: object) -> str:
    """The value as its writer would recognise it, cut to one short line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        text = (
            f"a mapping of {len(value)} keys ({', '.join(map(str, value))})" if value else "an empty mapping"
        )
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(_shown(item) for item in value)}]"
    else:
        text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
