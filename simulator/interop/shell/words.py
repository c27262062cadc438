"""The lexical half of a shell: a script's text as commands of raw words, nothing expanded yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CLOSING = {"(": ")", "{": "}"}
CONDITIONS = frozenset({"[[", "if", "elif"})  # of which && and || are parts


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written, quotes and all, and its line (1-based)."""

    raw: str
    line: int


@dataclass(frozen=True, slots=True)
class Command:
    """Raw words up to what ended them: a newline, ``;``, ``|``, ``&``, ``&&`` or ``||``."""

    words: tuple[Word, ...]
    end: str


class UnclosedError(ValueError):
    """A quote or bracket that never ends; ``line`` is where it began."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def commands(text: str) -> Iterator[Command]:
    """The simple commands of a script in order.

    Raises:
        UnclosedError: a quote or bracket never ends.
    """
    scanner = _Scanner(_joined(text))
    command: list[Word] = []
    while scanner.at < len(scanner.text):
        if end := scanner.ends_command(in_test=bool(command) and command[0].raw in CONDITIONS):
            if command:
                yield Command(tuple(command), end)
            command = []
        elif not scanner.skip_blank():
            command.append(scanner.word())
    if command:
        yield Command(tuple(command), "")


def words(text: str, line: int) -> list[Word]:
    """The words of a list in brackets, where newlines and comments are blanks."""
    scanner = _Scanner(_joined(text))
    found = []
    while scanner.at < len(scanner.text):
        if scanner.peek() == "\n":
            scanner.at += 1
        elif not scanner.skip_blank():
            word = scanner.word()
            found.append(Word(word.raw, word.line + line - 1))
    return found


def _joined(text: str) -> str:
    """Continued lines as one; the NULs keep count of them."""
    return text.replace("\r\n", "\n").replace("\\\n", " \x00")


class _Scanner:
    """A position in a text in which continued lines are joined by a blank and a NUL, to keep count."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.text[at] if 0 <= at < len(self.text) else ""

    @property
    def line(self) -> int:
        before = self.text[: self.at]
        return 1 + before.count("\n") + before.count("\x00")

    def skip_blank(self) -> bool:
        """Steps over one blank or one comment, if it stands on one."""
        if self.peek() in (" ", "\t", "\r", "\x00"):
            self.at += 1
            return True
        if self.peek() == "#":
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
            return True
        return False

    def ends_command(self, *, in_test: bool) -> str:
        """Steps over what ends a command, if it stands on it; ``&`` beside ``>`` is a redirection."""
        character = self.peek()
        redirected = character == "&" and (self.peek(-1) == ">" or self.peek(1) == ">")
        if character not in ("\n", ";", "|", "&") or redirected or (in_test and character in ("|", "&")):
            return ""
        end = character * 2 if character in ("|", "&") and self.peek(1) == character else character
        self.at += len(end)
        return end

    def word(self) -> Word:
        start, line = self.at, self.line
        while (character := self.peek()) and character not in (" ", "\t", "\r", "\x00", "\n", ";", "|"):
            if character == "&" and self.peek(-1) != ">" and self.peek(1) != ">":
                break
            if character in ("'", '"', "`"):
                self.quoted(character)
            elif character == "\\":
                self.at += 2
            elif character == "$" and self.peek(1) in CLOSING:
                self.at += 1
                self.bracket()
            elif character == "(":
                self.bracket()
            else:
                self.at += 1
        while self.peek() in ("|", "&") and self.text[start : self.at].strip("|&") == "":
            self.at += 1  # && or || of a condition
        return Word(self.text[start : self.at].replace("\x00", ""), line)

    def quoted(self, mark: str) -> None:
        line = self.line
        self.at += 1
        while (character := self.peek()) != mark:
            if not character:
                raise UnclosedError(f"a quote {mark} is never closed", line)
            if character == "\\" and mark == '"':
                self.at += 1
            elif character == "$" and self.peek(1) in CLOSING and mark == '"':
                self.at += 1
                self.bracket()
                continue
            self.at += 1
        self.at += 1

    def bracket(self) -> None:
        """Steps over a bracket and what is inside; in lists, ``#`` after a blank begins a comment."""
        line, close = self.line, CLOSING[self.peek()]
        self.at += 1
        while (character := self.peek()) != close:
            if not character:
                raise UnclosedError(f"a bracket is never closed with {close}", line)
            if character in ("'", '"', "`"):
                self.quoted(character)
            elif character in CLOSING:
                self.bracket()
            elif character == "#" and self.peek(-1).isspace():
                self.skip_blank()
            else:
                self.at += 2 if character == "\\" else 1
        self.at += 1
