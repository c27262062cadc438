"""What an import found: the keys of a model or run file, and what became of everything that was read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any, Literal

import yaml

Fate = Literal["mapped", "implied", "approximated", "ignored"]
FATES: dict[Fate, str] = {
    "mapped": "mapped",
    "implied": "not in the file, but so in this software",
    "approximated": "entered as something near it",
    "ignored": "ignored: no meaning for time or memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was read (``written``), or had to be assumed, and what became of it (``meaning``)."""

    fate: Fate
    written: str
    meaning: str


@dataclass(slots=True, kw_only=True)
class Imported:
    """Keys of a model or run file, collected while reading, and the account of the reading."""

    title: str
    keys: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)

    def note(self, fate: Fate, written: str, meaning: str) -> None:
        """Adds a line to the account."""
        self.lines.append(Line(fate=fate, written=written, meaning=meaning))

    def of(self, fate: Fate) -> list[Line]:
        """The lines of one fate."""
        return [line for line in self.lines if line.fate == fate]

    def yaml_text(self) -> str:
        """The file: a comment that says where it is from, and the keys."""
        return f"# {self.title}\n" + yaml.safe_dump(
            self.keys, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
        )

    def account(self) -> Iterator[str]:
        """The lines for a reader: by fate, and things of equal meaning together."""
        for fate, heading in FATES.items():
            if self.of(fate):
                yield heading
            same = [line.written for line in self.of(fate) if line.written == line.meaning]
            if same:
                yield _paragraph(", ".join(same))
            grouped: dict[str, list[str]] = {}
            for line in self.of(fate):
                if line.written != line.meaning:
                    grouped.setdefault(line.meaning, []).append(line.written)
            arrow = " → " if fate == "mapped" else ": "
            for meaning, written in grouped.items():
                yield _paragraph(f"{', '.join(written)}{arrow}{meaning}")

    def as_json(self) -> Mapping[str, Any]:
        """The keys and the account."""
        account: dict[str, Any] = {
            fate: [{"written": line.written, "meaning": line.meaning} for line in self.of(fate)]
            for fate in FATES
        }
        return {"keys": self.keys, **account}


def _paragraph(text: str) -> str:
    return fill(text, width=100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def shown(value: object) -> str:
    """A value as its file writes it, cut to one short line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 40 else f"{text[:39]}…"
