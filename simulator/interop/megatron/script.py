"""A script that launches Megatron-LM becomes a run file.

The script is followed, not run. Every flag is mapped, known to mean nothing for time and memory, entered as
something near it and so noted, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import yaml

from simulator.interop.imported import Imported
from simulator.interop.megatron.flags import APPROXIMATED, CHOICES, DEFAULTS, SWITCHES, VALUES
from simulator.interop.megatron.other_flags import ignored_flag, not_modelled
from simulator.interop.megatron.special import SPECIAL_FLAGS, Flags, finish
from simulator.interop.shell.script import Argument, Script, follow
from simulator.interop.shell.values import UNKNOWN, unknown_in
from simulator.spec.errors import Problem, SpecError, listed, nearest
from simulator.spec.load import parse_run
from simulator.spec.model import ModelSpec
from simulator.spec.overrides import leave_out_nulls, parse_override, set_value
from simulator.spec.run import Parallelism, RunSpec, Runtime, Training
from simulator.spec.text_file import read_text
from simulator.spec.yaml_loader import parse_yaml, scalar

STAND_IN: Final = "dgx-h100-ndr"
LAUNCHERS: Final = {  # flags of launchers -> what they count
    **dict.fromkeys(
        ("--nproc-per-node", "--gpus-per-node", "--ntasks-per-node", "--num-gpus", "-N"), "per node"
    ),
    **dict.fromkeys(("--nnodes", "--num-nodes", "--nodes"), "nodes"),
    **dict.fromkeys(("--ntasks", "-n", "-np"), "all"),
}
ORDERED: Final[dict[str, tuple[str, ...]]] = {
    "model": tuple(ModelSpec.__dataclass_fields__),
    "parallelism": tuple(Parallelism.__dataclass_fields__),
    "training": tuple(Training.__dataclass_fields__),
    "runtime": tuple(Runtime.__dataclass_fields__),
}
SECTIONS: Final = ("model", "cluster", "gpus", "parallelism", "training", "runtime", "assumptions")


def import_script(
    path: Path,
    *,
    cluster: str = "",
    gpus: int = 0,
    name: str = "",
    variables: Mapping[str, str] | None = None,
    ignored: Iterable[str] = (),
    overrides: Iterable[str] = (),
) -> tuple[Imported, RunSpec]:
    """The run that a script launches, with the account of every flag.

    Args:
        path: a shell script, or a text of flags.
        cluster: what it runs on; by default a stand-in, which the run file names as an assumption.
        gpus: where the script does not say how many.
        name: of the run; by default the file's.
        variables: of the environment, which win over the script's.
        ignored: flags that the caller knows to mean nothing here.
        overrides: ``key.path=value`` each, for keys of the run file.

    Raises:
        SpecError: the file cannot be read, or everything in it that cannot be followed, is not modelled or
            breaks a rule of run files.
    """
    file = str(path)
    script = follow(read_text(path, "a shell script", (".sh",)), file, variables or {})
    launcher, arguments = _launch(script, file)
    imported = Imported(title=f"From {path.name}, a script for Megatron-LM.")
    for what in script.skipped:
        imported.note("ignored", what, "not followed: write out what it does if it sets a flag")
    world = gpus or _world(launcher, script)
    flags = Flags(file=file, gpus=world, keys=dict(DEFAULTS), imported=imported)
    _read_flags(flags, arguments, frozenset(ignored))
    if not world:
        rule = "the script does not say on how many GPUs it runs"
        flags.problems.append(Problem(file=file, key_path="gpus", rule=rule, suggestion="--gpus N"))
    if flags.problems:
        raise SpecError(*flags.problems)
    imported.keys = _run_file(flags, name or path.stem, cluster, overrides)
    return imported, parse_run(imported.yaml_text(), file)


def _launch(script: Script, file: str) -> tuple[list[Argument], list[Argument]]:
    """The launcher's words and the training program's: of the last command that starts one with flags.

    A text without a program is taken as the flags themselves, in commands or in lists.
    """
    for command in reversed(script.commands):
        words = _opened(command, file, script)
        programs = [at for at, word in enumerate(words) if word.text.endswith(".py")]
        if programs and any(word.text.startswith("--") for word in words[programs[-1] + 1 :]):
            return words[: programs[-1]], words[programs[-1] + 1 :]
    bare = [word for command in script.commands if command[0].text.startswith("--") for word in command]
    for items in script.lists.values():
        bare += items if items and items[0].text.startswith("--") else []
    if bare:
        own = [word for word in bare if word.text not in LAUNCHERS]
        return bare if len(own) < len(bare) else [], own
    rule = "starts no training program: a command with a .py file and flags after it, or flags alone"
    raise SpecError(Problem(file=file, rule=rule))


def _opened(command: Sequence[Argument], file: str, script: Script) -> list[Argument]:
    """The words of a command; what stands in quotes (``bash -c "…"``) is read as a script of its own."""
    found: list[Argument] = []
    for word in command:
        if re.search(r"\.py\s", word.text):
            inner = follow(word.text, file, script.variables)
            found += [Argument(text.text, word.line) for line in inner.commands for text in line]
        else:
            found.append(word)
    return found


def _world(launcher: Sequence[Argument], script: Script) -> int:
    """The number of GPUs, from the launcher's options or the variables that usually hold it; 0: not said."""
    counts: dict[str, int] = {}
    texts = [part for word in launcher for part in word.text.split("=", 1)]
    for word, value in pairwise(texts):
        what = LAUNCHERS.get(word.replace("_", "-"))
        if what and value.isdecimal():
            counts[what] = int(value)
    if "per node" in counts:
        return counts["per node"] * counts.get("nodes", 1)
    usual = [script.variables.get(name, "") for name in ("WORLD_SIZE", "SLURM_NTASKS", "NUM_GPUS")]
    return counts.get("all", 0) or next((int(text) for text in usual if text.isdecimal()), 0)


def _read_flags(flags: Flags, arguments: Sequence[Argument], ignored: frozenset[str]) -> None:
    current: tuple[str, list[str], int] | None = None
    for argument in (*arguments, Argument("--", 0)):
        text = argument.text
        if text.startswith("--"):
            if current is not None:
                _read_flag(flags, *current, ignored)
            flag, equals, value = text.partition("=")
            current = (flag, [value] if equals else [], argument.line)
        elif current is not None and not re.match(r"\d?>|&>|<", text):
            current[1].append(text)
    finish(flags)


def _read_flag(flags: Flags, flag: str, values: list[str], line: int, ignored: frozenset[str]) -> None:
    missing = next((what for value in values if (what := unknown_in(value))), "")
    words = [UNKNOWN.sub(r"\1", value) for value in values]
    if flag in ignored:
        flags.imported.note("ignored", flag, "as asked on the command line")
    elif flag in VALUES or flag in CHOICES or flag in SPECIAL_FLAGS:
        if missing:
            remedy = f"--var {missing.strip('$')}=VALUE" if missing.startswith("$") else ""
            flags.refuse(flag, words, line, f"{missing} is not known from the script", remedy)
        else:
            _read_known(flags, flag, values, line)
    elif flag in SWITCHES:
        flags.set(flag, [], dict(SWITCHES[flag]))
    elif flag in APPROXIMATED:
        flags.imported.note("approximated", " ".join((flag, *words)), APPROXIMATED[flag])
    elif what := not_modelled(flag):
        flags.refuse(flag, words, line, f"{what} is not imported")
    elif reason := ignored_flag(flag):
        flags.imported.note("ignored", flag, reason)
    else:
        rule = f"is not known here; if it means nothing for time and memory: --ignore={flag}"
        flags.refuse(flag, words, line, rule, nearest(flag, (*VALUES, *SWITCHES, *CHOICES), limit=1, few=0))


def _read_known(flags: Flags, flag: str, values: list[str], line: int) -> None:
    if flag in SPECIAL_FLAGS:
        flags.left[flag] = (values, line)
    elif len(values) != 1:
        flags.refuse(flag, values, line, "must have one value")
    elif flag in VALUES:
        key = VALUES[flag]
        text = values[0]
        flags.set(flag, values, {key: text if key.endswith(("stage_split", "pattern")) else scalar(text)})
    elif values[0] in CHOICES[flag]:
        flags.set(flag, values, dict(CHOICES[flag][values[0]]))
    else:
        known = CHOICES[flag]
        flags.refuse(
            flag,
            values,
            line,
            f"must be {listed(known)}; others are not modelled",
            nearest(values[0], known, few=0),
        )


def _run_file(flags: Flags, name: str, cluster: str, overrides: Iterable[str]) -> dict[str, Any]:
    """The keys of the run file: sections in their usual order, with the stand-in named as an assumption."""
    tree: dict[str, Any] = {"model": {"name": name}, "cluster": cluster or STAND_IN, "gpus": flags.gpus}
    for path, value in flags.keys.items():
        *above, last = path.split(".")
        section = tree
        for key in above:
            section = section.setdefault(key, {})
        section[last] = value
    near = flags.imported.of("approximated")
    assumptions = [f"{line.written}: {line.meaning}" for line in near]
    if not cluster:
        rule = f"cluster {STAND_IN}: a stand-in, the script names none; --cluster NAME takes another"
        assumptions.insert(0, rule)
        flags.imported.note("implied", "no cluster", f"{STAND_IN} stands in; --cluster NAME takes another")
    tree["assumptions"] = assumptions
    document = {"name": name, **{key: tree[key] for key in SECTIONS if tree.get(key)}}
    root = parse_yaml(
        yaml.safe_dump(document, allow_unicode=True, sort_keys=False), flags.file, numbered=False
    )
    for text in overrides:
        root = set_value(root, "runs", *parse_override(text))
    leave_out_nulls(root, RunSpec)
    keys: dict[str, Any] = root.plain()
    for part, order in ORDERED.items():
        if isinstance(found := keys.get(part), dict):
            keys[part] = {key: found[key] for key in (*order, *found) if key in found}
    if "vocab_size" not in keys.get("model", {}):
        rule = "the vocabulary is not in the script: its tokenizer reads it from files"
        remedy = "--set model.vocab_size=N"
        raise SpecError(Problem(file=flags.file, key_path="--vocab-size", rule=rule, suggestion=remedy))
    return keys
