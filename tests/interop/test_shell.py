"""Scripts are followed as a shell would: words, lists, arithmetic, conditions on variables."""

from __future__ import annotations

import pytest

from simulator.interop.shell.script import follow
from simulator.interop.shell.values import unknown_in
from simulator.spec.errors import SpecError


def words(text: str, **given: str) -> list[str]:
    """The words of the last command."""
    return [argument.text for argument in follow(text, "script", given).commands[-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run a 'b c' \"d e\" f\\ g", ["run", "a", "b c", "d e", "f g"]),
        ("run a \\\n  b # comment 'not a quote\n", ["run", "a", "b"]),
        ("X=1; run $X ${X}2 '$X' \"$X\"", ["run", "1", "12", "$X", "1"]),
        ("X='a b'; run $X \"$X\"", ["run", "a", "b", "a b"]),
        ("N=2\nG=8\nrun $(( $N * (G + 1) ))", ["run", "18"]),
        ("run ${X:-5} ${Y:-'a'}", ["run", "5", "a"]),
        ("A=(--a 1 # one\n --b '2 3')\nA+=(--c)\nrun ${A[@]}", ["run", "--a", "1", "--b", "2 3", "--c"]),
        ('S=" --a 1 \\\n --b"\nS="$S 2"\nrun $S', ["run", "--a", "1", "--b", "2"]),
        ('run "$@" $* end', ["run", "end"]),
        ("export X=1 Y=2\nX=3 run $X$Y", ["run", "32"]),
        ("run a > log 2>&1 &", ["run", "a", ">", "log", "2>&1"]),
        ("if [ 1 -eq 2 ]; then X=a; elif [[ b == b ]]; then X=b; else X=c; fi\nrun $X", ["run", "b"]),
        ("if [ -z $X ]; then\n  if [ 1 -gt 0 ]; then Y=1; fi\nelse\n  Y=2\nfi\nrun $Y", ["run", "1"]),
        ("X=1\n[ $X -eq 1 ] && Y=yes\n[ $X -eq 1 ] || Y=no\nrun $Y", ["run", "yes"]),
        ("for i in a b; do run $i; done\nrun end", ["run", "end"]),
    ],
)
def test_words_are_what_a_shell_makes_of_them(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_given_variables_win() -> None:
    assert words("X=1\nrun $X", X="2") == ["run", "2"]


@pytest.mark.parametrize("text", ["run $X", "run ${X%a}", "run $(date)", "run `date`", "run $((X * 2))"])
def test_what_cannot_be_known_is_marked(text: str) -> None:
    assert unknown_in(words(text)[1])


@pytest.mark.parametrize("text", ["a\nrun 'x", 'a\nrun "x', "a\nX=(1", "a\nrun $((1"])
def test_an_open_quote_or_bracket_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(SpecError, match="script:2"):
        follow(text, "script", {})
