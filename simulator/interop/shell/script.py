"""Enough of a shell to follow a launch script: variables, lists, arithmetic, conditions on variables.

Nothing is run. What cannot be known (an unset variable, the output of a command) stays marked in the words,
so that whoever needs the value can say which one is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from simulator.interop.shell.values import decided, evaluated, unknown
from simulator.interop.shell.words import UnclosedError, Word, commands, words
from simulator.spec.errors import Problem, SpecError

ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)(\[[^]]*\])?(\+?)=(.*)", re.DOTALL)
BLANKS: Final = re.compile(r"[ \t\n]+")
DECLARE: Final = {"export", "declare", "local", "readonly", "typeset"}
LOOPS: Final = {"for": "done", "while": "done", "until": "done", "case": "esac", "select": "done"}


@dataclass(frozen=True, slots=True)
class Argument:
    """An expanded word and its line."""

    text: str
    line: int


@dataclass(slots=True)
class Script:
    """A script followed to its end: commands with expanded words, and what could not be followed."""

    commands: list[list[Argument]] = field(default_factory=list)
    lists: dict[str, list[Argument]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def follow(text: str, file: str, given: Mapping[str, str]) -> Script:
    """The script with every variable expanded that it sets or that is ``given`` (which wins).

    Raises:
        SpecError: a quote that is never closed.
    """
    shell = _Shell(Script(variables={**_slurm(text), **given}), frozenset(given))
    try:
        shell.run(text)
    except UnclosedError as error:
        raise SpecError(Problem(file=file, line=error.line, rule=str(error))) from None
    return shell.script


def _slurm(text: str) -> dict[str, str]:
    """The variables that Slurm would set from ``#SBATCH`` lines."""
    options: dict[str, str] = dict(re.findall(r"^#SBATCH\s+--?([\w-]+)[=\s]\s*(\S+)", text, re.MULTILINE))
    nodes = options.get("nodes", options.get("N", ""))
    per_node = options.get("ntasks-per-node", options.get("gpus-per-node", ""))
    found = {"SLURM_NNODES": nodes, "SLURM_JOB_NUM_NODES": nodes, "SLURM_GPUS_PER_NODE": per_node}
    found["SLURM_NTASKS_PER_NODE"] = per_node
    if nodes.isdecimal() and per_node.isdecimal():
        found["SLURM_NTASKS"] = str(int(nodes) * int(per_node))
    return {name: value for name, value in found.items() if value}


class _Shell:
    """Follows commands; ``fixed`` variables keep their given values."""

    def __init__(self, script: Script, fixed: frozenset[str]) -> None:
        self.script = script
        self.fixed = fixed
        self.branches: list[list[bool]] = []  # per open if: [this branch runs, one has run]
        self.loop = ""
        self.skips = False  # a test before && or || that says not to run what follows

    def run(self, text: str) -> None:
        for command in commands(text):
            self.command(list(command.words), command.end)

    def command(self, command: list[Word], end: str) -> None:
        while command and command[0].raw in ("then", "do", "{", "}", "!"):
            command = command[1:]
        if not command:
            return
        first = command[0].raw
        if self.loop:
            self.loop = "" if first == self.loop else self.loop
        elif first in LOOPS:
            self.loop = LOOPS[first]
            self.script.skipped.append(f"line {command[0].line}: {first} … {self.loop}")
        elif first in ("if", "elif", "else", "fi"):
            self.branch(first, command[1:])
        elif all(branch[0] for branch in self.branches):
            skipped, self.skips = self.skips, False
            if not skipped and first in ("[", "[[", "test") and end in ("&&", "||"):
                self.skips = self.holds(command) == (end == "||")
            elif not skipped:
                self.simple(command)

    def branch(self, word: str, condition: list[Word]) -> None:
        if word == "fi":
            del self.branches[-1:]
        elif word == "if":
            runs = all(branch[0] for branch in self.branches) and self.holds(condition)
            self.branches.append([runs, runs])
        elif self.branches:
            taken = self.branches[-1][1]
            runs = not taken and (word == "else" or self.holds(condition))
            self.branches[-1] = [runs, taken or runs]

    def holds(self, condition: list[Word]) -> bool:
        """Whether a ``[ … ]`` on variables holds; what cannot be decided is noted and taken for false."""
        texts = [argument.text for argument in self.expanded(condition)]
        verdict = decided([text for text in texts if text not in ("[", "]", "[[", "]]", "test")])
        if verdict is None and condition:
            shown = " ".join(word.raw for word in condition)
            self.script.skipped.append(f"line {condition[0].line}: if {shown}, taken for false")
        return bool(verdict)

    def simple(self, command: list[Word]) -> None:
        if command[0].raw in DECLARE:
            command = [word for word in command[1:] if not word.raw.startswith("-")]
        while command and (found := ASSIGNMENT.fullmatch(command[0].raw)):
            self.assign(found, command[0].line)
            command = command[1:]
        if command:
            self.script.commands.append(self.expanded(command))

    def assign(self, found: re.Match[str], line: int) -> None:
        name, _, adds, value = found.groups()
        if name in self.fixed:
            return
        if value.startswith("("):
            items = self.expanded(words(value[1:-1], line))
            self.script.lists[name] = (self.script.lists.get(name, []) if adds else []) + items
            return
        text = " ".join(self.pieces(value, split=False))
        self.script.variables[name] = (self.script.variables.get(name, "") if adds else "") + text

    def expanded(self, raw: list[Word]) -> list[Argument]:
        return [Argument(text, word.line) for word in raw for text in self.pieces(word.raw, split=True)]

    def pieces(self, raw: str, *, split: bool) -> list[str]:
        """The words that a raw word becomes: lists give several, blanks in unquoted variables split."""
        if whole := re.fullmatch(r'"?\$\{(\w+)\[[@*]\]\}"?', raw):
            return [argument.text for argument in self.script.lists.get(whole[1], [])]
        if raw in ("$@", '"$@"', "$*", '"$*"', "${@}", '"${@}"'):
            return []
        texts, any_quoted = [""], False
        for text, quoted in self.parts(raw):
            any_quoted |= quoted
            if quoted or not split or not BLANKS.search(text):
                texts[-1] += text
                continue
            first, *others = BLANKS.split(text)
            texts[-1] += first
            texts.extend(others)
        return texts if any_quoted or not split else [text for text in texts if text]

    def parts(self, raw: str) -> Iterator[tuple[str, bool]]:
        """Stretches of a word with their variables expanded, and whether they were quoted."""
        at = 0
        while at < len(raw):
            if raw[at] == "\\":
                yield raw[at + 1 : at + 2], True
                at += 2
            elif raw[at] == "'":
                end = raw.index("'", at + 1)
                yield raw[at + 1 : end], True
                at = end + 1
            elif raw[at] == '"':
                end = _closing_quote(raw, at)
                yield self.substituted(raw[at + 1 : end]), True
                at = end + 1
            else:
                end = at
                while end < len(raw) and raw[end] not in "'\"\\":
                    end = _after(raw, end)
                yield self.substituted(raw[at:end]), False
                at = end

    def substituted(self, text: str) -> str:
        """A text with ``$NAME``, ``${NAME…}``, ``$((…))`` and ``$(…)`` replaced."""
        found, at = "", 0
        while at < len(text):
            if text[at] == "\\" and at + 1 < len(text):
                found, at = found + text[at + 1], at + 2
            elif text[at] == "`":
                end = text.find("`", at + 1)
                found, at = found + unknown("the output of a command"), (end if end > 0 else len(text)) + 1
            elif text[at] == "$" and (name := re.match(r"\$(\w+|[@*?#!$-])", text[at:])):
                found, at = found + self.value(name[1]), at + name.end()
            elif text[at] == "$" and at + 1 < len(text) and text[at + 1] in "({":
                end = _after(text, at)
                found, at = found + self.bracketed(text[at + 1 : end]), end
            else:
                found, at = found + text[at], at + 1
        return found

    def value(self, name: str) -> str:
        if name in self.script.variables:
            return self.script.variables[name]
        if name in self.script.lists:
            return self.script.lists[name][0].text if self.script.lists[name] else ""
        return "" if name in ("@", "*") else unknown(f"${name}")

    def bracketed(self, text: str) -> str:
        """What stands for ``{…}``, ``((…))`` or ``(…)`` after a dollar."""
        if text.startswith("(("):
            return self.arithmetic(text[2:-2])
        if text.startswith("("):
            return unknown("the output of a command")
        inside = text[1:-1]
        if found := re.fullmatch(r"(\w+)(?::?([-=+?])(.*))?", inside, re.DOTALL):
            name, sign, other = found.groups()
            known = self.script.variables.get(name, "")
            if sign == "+":
                return self.substituted(other) if known else ""
            return (
                self.substituted(other.strip("\"'")) if sign in ("-", "=") and not known else self.value(name)
            )
        if found := re.fullmatch(r"(\w+)\[[@*]\]", inside):
            return " ".join(argument.text for argument in self.script.lists.get(found[1], []))
        return unknown("${" + inside + "}")

    def arithmetic(self, text: str) -> str:
        named = re.sub(r"\$?\{?([A-Za-z_]\w*)\}?", lambda found: self.value(found[1]), text)
        number = evaluated(self.substituted(named))
        return unknown(f"$(({text}))") if number is None else str(number)


def _after(text: str, at: int) -> int:
    """The place after the character, escape or dollar bracket at ``at``."""
    if text[at] == "\\":
        return min(at + 2, len(text))
    if text[at] != "$" or at + 1 >= len(text) or text[at + 1] not in "({":
        return at + 1
    depth = 0
    for place in range(at + 1, len(text)):
        depth += (text[place] in "({") - (text[place] in ")}")
        if not depth:
            return place + 1
    return len(text)


def _closing_quote(raw: str, at: int) -> int:
    place = at + 1
    while place < len(raw) and raw[place] != '"':
        place = _after(raw, place)
    return place
