"""A file or a name of another kind than the one asked for is told as such, with the command that takes it."""

from importlib import resources
from pathlib import Path

import pytest

from simulator.spec import catalogue
from simulator.spec.errors import SpecError
from simulator.spec.kinds import SPECS, kind_of
from simulator.spec.load import load_run
from simulator.spec.yaml_loader import read_yaml
from simulator.sweep.read import read_sweep

SHIPPED = {kind: catalogue.names(kind) for kind in (*SPECS, "sweeps")}


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_file_that_ships_is_of_its_kind(kind):
    package, folder = catalogue.FOLDERS[kind]
    for name in SHIPPED[kind]:
        assert kind_of(read_yaml(resources.files(package) / folder / f"{name}.yaml")) == kind


@pytest.mark.parametrize(
    ("load", "asked", "found", "remedy"),
    [
        (load_run, "runs", "sweeps", "stepcast sweep "),
        (read_sweep, "sweeps", "runs", "stepcast run "),
        (load_run, "runs", "models", "'model: "),
        (load_run, "runs", "clusters", "'cluster: "),
        (read_sweep, "sweeps", "devices", "stepcast show "),
        (load_run, "runs", "links", "stepcast show "),
    ],
)
def test_another_kind_of_file_or_name_gets_one_message_and_its_own_command(load, asked, found, remedy):
    package, folder = catalogue.FOLDERS[found]
    name = next(name for name in SHIPPED[found] if name not in SHIPPED[asked])
    path = Path(str(resources.files(package))) / folder / f"{name}.yaml"
    for asked_for in (name, path):
        with pytest.raises(SpecError) as caught:
            load(asked_for)
        (problem,) = caught.value.problems
        assert catalogue.ARTICLES[found] in problem.rule
        assert catalogue.ARTICLES[asked] in problem.rule
        assert f"{remedy}{asked_for}" in problem.suggestion


def test_an_alias_of_a_device_is_no_run():
    with pytest.raises(SpecError, match="is a device, not a run"):
        load_run("h100")


def test_a_run_file_with_a_stray_key_is_still_a_run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("run: x\nmodel: llama3-8b\n")
    with pytest.raises(SpecError) as caught:
        load_run(path)
    assert {"run", "cluster", "gpus"} <= {problem.key_path for problem in caught.value.problems}
