"""Megatron's pipeline layout strings: ``Et*2|(t*2|)*34,t*3|(t*2|)*3,tL``.

E embedding, t transformer layer, m multi-token-prediction layer, L loss; ``|`` ends a stage, ``x*n`` and
``(…)*n`` repeat, commas and blanks only separate. Grammar:

    layout := item*
    item   := (E | t | m | L | "|" | "(" layout ")") ["*" number]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulator.spec.errors import nearest
from simulator.spec.fields import Accepts, Integer, refused
from simulator.spec.stage_split import ENDS, parse_ends

LAYOUT_CHARACTERS = frozenset("EtmL|()*, 0123456789")


@dataclass(frozen=True)
class StageLayout(Accepts):
    """One of a few names, ``first=a,last=b``, layer counts, or a layout."""

    names: tuple[str, ...]

    def check(self, value: Any) -> str | tuple[int, ...]:
        if isinstance(value, str) and value in self.names:
            return value
        if isinstance(value, list | tuple) and value:
            return tuple(int(Integer(0).check(count) or 0) for count in value)
        text = str(value)
        if "|" in text or text.startswith(ENDS):
            try:
                (parse_layout if "|" in text else parse_ends)(text)
            except ValueError as error:
                refused(str(error))
            return text
        rule = f"must be one of {', '.join(self.names)}, {self.others}"
        return refused(rule, nearest(text, self.names, few=0))

    @property
    def others(self) -> str:
        """What may be written beside the names."""
        return "first=a,last=b, a list of layer counts, or a layout such as Et*3|(t*4|)*14tL"

    @property
    def meaning(self) -> str:
        return (
            f"{', '.join(self.names)}, first=a,last=b (layers of the end devices), a list of layer counts, "
            "or a layout: E embedding, t layer, m MTP layer, L loss, | a new stage"
        )


def has_empty_stage(split: str | tuple[int, ...]) -> bool:
    """Whether layer counts or a layout string leave a stage without a layer."""
    if isinstance(split, tuple):
        return 0 in split
    return "|" in split and not all("t" in stage for stage in parse_layout(split))


def parse_layout(text: str) -> list[str]:
    """The letters of each stage, in model order; a stage may be empty.

    Raises:
        ValueError: not a layout, or a layout that no model has; syntax errors point at the column.
    """
    stages = _Parser(text).parse().split("|")
    _check_layout(text, stages)
    return stages


class _Parser:
    """Recursive descent over the text; every method returns the letters it read, repeats written out."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def parse(self) -> str:
        letters = self.items()
        if self.at < len(self.text):
            raise self.error("this bracket was never opened")
        return letters

    def items(self) -> str:
        letters = ""
        while (character := self.peek()) and character != ")":
            letters += self.item(character)
        return letters

    def item(self, character: str) -> str:
        opened = self.at
        self.at += 1
        if character == "(":
            letters = self.items()
            if not self.peek():
                self.at = opened
                raise self.error("this bracket is never closed")
            self.at += 1
        elif character in "EtmL|":
            letters = character
        else:
            self.at = opened
            raise self.error("expected E, t, m, L, | or (")
        if self.peek() == "*":
            self.at += 1
            letters *= self.number()
        return letters

    def number(self) -> int:
        self.peek()
        start = self.at
        while self.at < len(self.text) and self.text[self.at].isdecimal():
            self.at += 1
        if start == self.at:
            raise self.error("expected a number after *")
        return int(self.text[start : self.at])

    def peek(self) -> str:
        """The next character that matters, or an empty string at the end."""
        while self.at < len(self.text) and self.text[self.at] in ", ":
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def error(self, problem: str) -> ValueError:
        return ValueError(f"layout, column {self.at + 1}: {problem}\n  {self.text}\n  {' ' * self.at}^")


def _check_layout(text: str, stages: list[str]) -> None:
    """One embedding first, layers, MTP layers after them, one loss last."""
    letters = "".join(stages)
    layers = letters[1:-1]
    if letters.count("E") != 1 or not stages[0].startswith("E"):
        raise ValueError(f"layout {text!r} must have exactly one E, at its very beginning")
    if letters.count("L") != 1 or not stages[-1].endswith("L"):
        raise ValueError(f"layout {text!r} must have exactly one L, at its very end")
    if layers != "t" * layers.count("t") + "m" * layers.count("m"):
        raise ValueError(f"layout {text!r} must have its MTP layers (m) after all transformer layers (t)")
