"""The YAML reader is strict, safe and remembers lines."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from simulator.spec.errors import Problem, SpecError
from simulator.spec.text_file import MAX_BYTES
from simulator.spec.yaml_loader import MAX_DEPTH, parse_yaml, read_yaml

Write = Callable[..., Path]


def problem_of(action: Callable[[], object]) -> Problem:
    """The only problem that an action reports."""
    with pytest.raises(SpecError) as caught:
        action()
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("989e12", 989e12), ("9.89e14", 9.89e14), ("1e-3", 1e-3), (".5", 0.5), ("1.", 1.0), ("-3", -3)),
        *(("2_048", 2048), ("010", 10), ("on", "on"), ("off", "off"), ("yes", "yes"), ("no", "no")),
        *(
            ("true", True),
            ("False", False),
            ("null", None),
            ("~", None),
            ("", None),
            ("2024-01-01", "2024-01-01"),
        ),
        *(
            ("1:30", "1:30"),
            ("1f1b", "1f1b"),
            ("1e", "1e"),
            (".inf", ".inf"),
            ("0x10", "0x10"),
            ("'12'", "12"),
        ),
        *(("_1", "_1"), ("1__0", "1__0"), ("e5", "e5"), (".", "."), ("-", [None]), ("[1, a]", [1, "a"])),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    read = parse_yaml(text, "x").plain()
    assert read == value
    assert type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(number: float) -> None:
    assert math.isclose(parse_yaml(repr(number), "x").plain(), number, rel_tol=0, abs_tol=0)


# No digits: PyYAML leaves a text such as "0E0" unquoted, because for YAML 1.1 it is no number.
WORDS = st.text(max_size=20).filter(lambda text: not any(character.isdigit() for character in text))
SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | WORDS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(TREES, st.booleans())
def test_what_pyyaml_writes_is_read_back(tree: object, flow: bool) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow)
    assert parse_yaml(text, "x").plain() == tree


@given(st.text(max_size=200))
def test_any_text_gives_a_value_or_a_spec_error(text: str) -> None:
    try:
        parse_yaml(text, "x")
    except SpecError as error:
        assert all(problem.file == "x" for problem in error.problems)


def test_every_key_has_its_line() -> None:
    root = parse_yaml("a:\n  b: 1\n  # note\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n", "x")
    lines = {
        path: root.nearest(path).line for path in [("a", "b"), ("a", "c"), ("a", "c", 1), ("a", "c", 1, "e")]
    }
    assert lines == {("a", "b"): 2, ("a", "c"): 4, ("a", "c", 1): 6, ("a", "c", 1, "e"): 7}


def test_a_missing_key_points_to_what_should_hold_it() -> None:
    assert parse_yaml("a:\n  b: 1\n", "x").nearest(("a", "z", "y")).line == 1


@pytest.mark.parametrize(
    ("text", "line", "key_path", "rule"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", "already given on line 1"),
        ("a:\n  b: !!python/object:os.system x\n", 2, "a.b", "tag"),
        ("a: !secret x\n", 1, "a", "tag"),
        ("a: &x 1\n", 1, "a", "anchor &x"),
        ("a: 1\nb: *x\n", 2, "b", "alias *x"),
        ("a: 1\n<<: {b: 2}\n---\nc: 3\n", 3, "", "second one"),
        ("a: 1\n  b: 2\n", 2, "", "not valid YAML: mapping values are not allowed"),
        ("a: [1, 2\nb: 3\n", 2, "a.2", "not valid YAML"),
        ("a:\n\tb: 1\n", 2, "a", "not valid YAML"),
        ("? [1, 2]\n: 3\n", 1, "", "a key is one word"),
        ("a: '\x07'\n", 1, "", "not valid YAML: control characters are not allowed"),
    ],
)
def test_what_is_refused_says_where_and_why(text: str, line: int, key_path: str, rule: str) -> None:
    problem = problem_of(lambda: parse_yaml(text, "x"))
    assert (problem.line, problem.key_path) == (line, key_path)
    assert rule in problem.rule


def test_several_problems_are_told_together() -> None:
    with pytest.raises(SpecError) as caught:
        parse_yaml("a: 1\na: 2\nb: !tag 3\nb: 4\n", "x")
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4]


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(SpecError, match="anchor"):  # expanded, it would fill the memory
        parse_yaml("\n".join(lines), "x")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000])
def test_deep_nesting_is_refused_not_followed(text: str) -> None:
    with pytest.raises(
        SpecError, match=rf"nested more than {MAX_DEPTH} levels|a key is one word|not valid YAML"
    ):
        parse_yaml(text, "x")


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")


def test_a_missing_file_names_its_neighbours(write: Write) -> None:
    path = write("a: 1", "llama-70b.yaml")
    problem = problem_of(lambda: read_yaml(path.with_name("lama-70b.yaml")))
    assert problem.rule == "no such file"
    assert "llama-70b.yaml" in problem.suggestion


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    problem = problem_of(lambda: read_yaml(tmp_path / "nowhere" / "run.yaml"))
    assert "does not exist either" in problem.suggestion


def test_a_directory_names_the_files_in_it(write: Write) -> None:
    problem = problem_of(lambda: read_yaml(write("a: 1", "runs/one.yaml").parent))
    assert "directory" in problem.rule
    assert problem.suggestion == "one.yaml"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "holds a list"),
        (b"just words\n", "holds one piece of text"),
        (b"42\n", "holds a single value"),
        (b"\x7fELF\x00\x00", "binary"),
        (b"a: 1\nb: caf\xe9\n", "not UTF-8 text: byte 0xe9 on line 2"),
        (b"a: " + b"x" * MAX_BYTES, "larger than 4 MiB"),
    ],
    ids=["empty", "comment", "list", "text", "number", "binary", "latin-1", "huge"],
)
def test_a_file_that_is_no_mapping_is_refused(data: bytes, rule: str, write: Write) -> None:
    assert rule in problem_of(lambda: read_yaml(write(data))).rule


def test_a_byte_order_mark_is_no_part_of_the_first_key(write: Write) -> None:
    assert read_yaml(write(b"\xef\xbb\xbfa: 1\n")).plain() == {"a": 1}


def test_the_reader_without_libyaml_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: 1\nb: [x, {c: 2e3}]\nd: |\n  long\n  text\n"
    fast = parse_yaml(text, "x")
    monkeypatch.setattr("simulator.spec.yaml_loader._Loader", yaml.SafeLoader)
    slow = parse_yaml(text, "x")
    assert slow == fast
