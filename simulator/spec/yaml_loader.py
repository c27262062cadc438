"""YAML, strictly and safely: a tree of values that remember their file and line.

Read event by event rather than through PyYAML's constructor, so that nothing but mappings, lists and plain
scalars can come out, nesting is bounded, and every key keeps its line. Unlike PyYAML's ``safe_load``:
duplicate keys, tags, anchors and aliases are refused; ``989e12`` and ``1e-3`` are numbers; ``on``, ``off``,
``yes``, ``no``, dates and sexagesimals stay strings (YAML 1.2's core schema).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from simulator.spec.errors import ABSENT, Problem, SpecError
from simulator.spec.text_file import read_text

MAX_DEPTH = 32

Value: TypeAlias = "dict[str, Node] | list[Node] | str | int | float | bool | None"

# libyaml where PyYAML was built with it: same events, ten times faster.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9](_?[0-9])*\Z")
_FLOAT = re.compile(r"[-+]?([0-9](_?[0-9])*\.?([0-9](_?[0-9])*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\Z")
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(slots=True)
class Node:
    """A YAML value and where it was written (``line`` of its key, 1-based)."""

    value: Value
    file: str = ""
    line: int = 0

    def plain(self) -> Any:
        """The value without places: dict, list, str, int, float, bool or None."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        """The node under a key or index, if there is one."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and str(key).isdecimal() and int(key) < len(self.value):
            return self.value[int(key)]
        return None

    def nearest(self, path: tuple[str | int, ...]) -> Node:
        """The deepest node on a key path that exists: where to point for a key that is missing."""
        node = self
        for key in path:
            below = node.child(key)
            if below is None:
                break
            node = below
        return node

    def problem(self, key_path: str, rule: str, suggestion: str = "", *, value: object = ABSENT) -> Problem:
        """Something wrong here, or with a key that is missing here."""
        return Problem(
            file=self.file,
            line=self.line,
            key_path=key_path,
            value=value,
            rule=rule,
            suggestion=suggestion,
        )


def read_yaml(path: Path | Traversable) -> Node:
    """The mapping in a YAML file.

    Raises SpecError for a file that is missing (naming its neighbours), a directory, unreadable, too large,
    not UTF-8 text, not YAML, or not a mapping at the top.
    """
    file = str(path)
    node = parse_yaml(read_text(path, "a YAML file", (".yaml", ".yml")), file)
    if not isinstance(node.value, dict):
        found = "is empty" if node.value is None else f"holds {_kind(node.value)}"
        raise SpecError(Problem(file=file, line=node.line, rule=f"{found}; 'key: value' lines are needed"))
    return node


def parse_yaml(text: str, file: str, *, numbered: bool = True) -> Node:
    """Any YAML value in a text that messages call ``file``, with line numbers if it has lines.

    Raises SpecError with all that is wrong.
    """
    builder = _Builder(file, numbered)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        detail = ", ".join(part for part in (error.problem, error.context) if part)
        builder.refuse(line, f"not valid YAML: {detail}", _syntax_hint(detail))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        builder.refuse(line, f"not valid YAML: {error.reason}")
    if builder.problems:
        raise SpecError(*builder.problems)
    return builder.root


def scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted YAML word means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text.replace("_", "")) if len(text) <= 400 else text
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return text


@dataclass(slots=True)
class _Open:
    """A collection still being read, and in a mapping the key that awaits its value."""

    node: Node
    key: str | None = None
    key_line: int = 0


class _Builder:
    """Builds the tree from parser events on a stack of its own, so that no input can exhaust Python's."""

    def __init__(self, file: str, numbered: bool) -> None:
        self.file = file
        self.numbered = numbered
        self.root = Node(None, file)
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._documents = 0

    def refuse(self, line: int, rule: str, suggestion: str = "", key: str = "") -> None:
        """Note a problem at a line, under the keys that are open."""
        path = ".".join(
            _open_key(level) for level in self._stack if level.key or isinstance(level.node.value, list)
        )
        path = ".".join(part for part in (path, key) if part)
        place = Node(None, self.file, line if self.numbered else 0)
        self.problems.append(place.problem(path, rule, suggestion))

    def take(self, event: yaml.Event) -> None:
        """One parser event."""
        line = event.start_mark.line + 1 if event.start_mark and self.numbered else 0
        if isinstance(event, yaml.ScalarEvent):
            self._check_plain(event, line)
            self._scalar(event, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_plain(event, line)
            self._start({} if isinstance(event, yaml.MappingStartEvent) else [], line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._add(self._stack.pop().node)
        elif isinstance(event, yaml.AliasEvent):
            self.refuse(
                line,
                f"the alias *{event.anchor} is not read",
                "write the value out, or start from 'base: NAME'",
            )
            self._add(Node(None, self.file, line))
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents == 2:
                self.refuse(line, "one YAML document per file; this '---' starts a second one")

    def _check_plain(self, event: Any, line: int) -> None:
        if event.tag is not None:
            self.refuse(
                line, f"the tag {event.tag} is not read; values are plain text, numbers, lists and mappings"
            )
        if event.anchor is not None:
            self.refuse(
                line, f"the anchor &{event.anchor} is not read", "write the value out where it is needed"
            )

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        level = self._stack[-1] if self._stack else None
        if level and isinstance(level.node.value, dict) and level.key is None:
            if event.value in level.node.value:
                first = level.node.value[event.value].line
                self.refuse(
                    line, f"the key is already given on line {first}", "keep one of the two", key=event.value
                )
            level.key, level.key_line = event.value, line
        else:
            self._add(Node(scalar(event.value) if event.implicit[0] else event.value, self.file, line))

    def _start(self, value: dict[str, Node] | list[Node], line: int) -> None:
        level = self._stack[-1] if self._stack else None
        if level and isinstance(level.node.value, dict) and level.key is None:
            self.refuse(line, "a key is one word or number, not a list or mapping")
            raise SpecError(*self.problems)
        if len(self._stack) == MAX_DEPTH:
            self.refuse(line, f"nested more than {MAX_DEPTH} levels deep")
            raise SpecError(*self.problems)
        self._stack.append(_Open(Node(value, self.file, line)))

    def _add(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        level = self._stack[-1]
        if isinstance(level.node.value, list):
            level.node.value.append(node)
        elif isinstance(level.node.value, dict) and level.key is None:
            level.key, level.key_line = "", node.line  # an alias as key, already refused
        elif isinstance(level.node.value, dict) and level.key is not None:
            node.line = level.key_line
            level.node.value[level.key] = node
            level.key = None


def _open_key(level: _Open) -> str:
    return str(len(level.node.value)) if isinstance(level.node.value, list) else (level.key or "")


def _kind(value: Value) -> str:
    if isinstance(value, list):
        return "a list"
    return "one piece of text" if isinstance(value, str) else "a single value"


def _syntax_hint(detail: str) -> str:
    if "\\t" in detail:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in detail:
        return "put quotes around a value that contains ': '"
    return "a key is missing its ':'" if "could not find expected ':'" in detail else ""
