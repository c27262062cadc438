"""Good files become frozen objects in SI units, with names, bases and overrides resolved."""

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.spec import catalogue
from simulator.spec.cluster import ClusterSpec, DeviceSpec
from simulator.spec.errors import SpecError
from simulator.spec.load import load_cluster, load_device, load_link, load_model, load_run
from simulator.spec.model import ModelSpec

Write = Callable[..., Path]


def test_a_whole_run_in_one_file(good: str, write: Write) -> None:
    run = load_run(write(good))
    assert (run.gpus, run.dp, run.microbatches, run.schedule) == (64, 8, 8, "1f1b")
    assert run.sequence_parallel
    assert run.cluster.device.peak_flops["bf16"] == 989e12
    assert run.cluster.device.memory_bytes == 80 * 2**30
    assert run.cluster.scale_out.link.bandwidth == 50e9
    assert run.cluster.scale_up.link.latency_s == pytest.approx(0.6e-6)
    assert [tier.name for tier in run.cluster.scale_out.tiers] == ["leaf", "spine"]
    assert run.model.head_dim == 64
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.gpus = 8  # type: ignore[misc]


def test_whole_numbers_may_be_written_as_floats(good: str, write: Write) -> None:
    run = load_run(write(good.replace("seq_length: 4096", "seq_length: 4.096e3").replace("64\n", "6_4\n")))
    assert run.training.seq_length == 4096
    assert isinstance(run.training.seq_length, int)
    assert run.gpus == 64


def test_a_run_survives_pickling_and_compares_by_value(good: str, write: Write) -> None:
    path = write(good)
    assert pickle.loads(pickle.dumps(load_run(path))) == load_run(path)


def test_an_error_survives_pickling(good: str, write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(write(good.replace("gpus: 64\n", "")))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("kind", ["models", "clusters", "devices", "links", "runs"])
def test_everything_that_ships_loads(kind: catalogue.Kind) -> None:
    load = {"models": load_model, "clusters": load_cluster, "devices": load_device, "links": load_link}
    names = catalogue.names(kind)
    assert names
    for name in names:
        loaded = load_run(name) if kind == "runs" else load[kind](name)
        assert loaded.name == name  # type: ignore[attr-defined]


def test_a_device_is_found_by_alias_and_by_a_cluster_that_holds_it() -> None:
    device = load_device("h100")
    assert isinstance(device, DeviceSpec)
    assert device == load_device("H100-SXM5-80GB") == load_device("grand-teton-h100-roce")


def test_a_device_stands_for_the_only_cluster_that_holds_it() -> None:
    assert load_cluster("h200").name == "dgx-h200"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, write: Write, good: str) -> Path:
    """Files of our own in place of the ones that ship."""
    lines = good.splitlines()
    start, end = lines.index("  device:"), lines.index("  scale_up:")
    device = "\n".join(line[4:] for line in lines[start + 1 : end])
    write(device + "\naliases: [c1]\n", "devices/chip.yaml")
    write("name: nv\nkind: nvlink\nbandwidth: 450 GB/s\nlatency_s: 1 us\n", "links/nv.yaml")
    cluster = "gpus_per_node: 8\ndevice: chip\nscale_up: {link: nv, domain_size: 8}\n"
    cluster += "scale_out: {link: nv, nics_per_node: 8, tiers: [{name: leaf}]}\nhost: {link: nv}\n"
    write(f"name: one\n{cluster}", "clusters/one.yaml")
    write(f"name: two\ndefault_for: chip\n{cluster}", "clusters/two.yaml")
    models = "\n".join(line[2:] for line in lines[lines.index("model:") + 1 : lines.index("cluster:")])
    folder = write(models, "models/tiny.yaml").parent.parent
    write(good, "runs/small.yaml")
    write("", "kernels/h100-sxm5-80gb.yaml")
    monkeypatch.setattr("simulator.spec.catalogue.resources.files", lambda package: folder)
    monkeypatch.setattr("simulator.spec.catalogue.FOLDERS", {kind: ("x", kind) for kind in catalogue.FOLDERS})
    return folder


RUN = """\
model: tiny
cluster: {cluster}
gpus: 64
parallelism: {{tp: 4, pp: 2}}
training: {{seq_length: 4096, micro_batch_size: 1, global_batch_size: 64}}
"""


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", ["two", "TWO", "chip", "c1"])
def test_a_run_names_its_cluster_or_a_device(name: str, write: Write) -> None:
    run = load_run(write(RUN.format(cluster=name)))
    assert run.cluster.name == "two"
    assert run.model.name == "tiny"


@pytest.mark.usefixtures("library")
def test_a_device_in_two_clusters_with_no_default_asks_which(library: Path) -> None:
    path = library / "clusters" / "two.yaml"
    path.write_text(path.read_text().replace("default_for: chip\n", ""))
    with pytest.raises(SpecError, match=r"no default cluster(.|\n)*one or two"):
        load_cluster("chip")


@pytest.mark.usefixtures("library")
def test_a_base_is_changed_key_by_key(write: Write) -> None:
    inline = "\n  base: two\n  device: {memory_bytes: 141 GB}\n  scale_up: {domain_size: 16}"
    cluster = load_run(write(RUN.format(cluster=inline))).cluster
    plain = load_cluster("two")
    assert cluster.device.memory_bytes == 141e9
    assert cluster.scale_up.domain_size == 16
    assert dataclasses.replace(cluster.device, memory_bytes=plain.device.memory_bytes) == plain.device
    assert cluster.scale_up.link == plain.scale_up.link


@pytest.mark.usefixtures("library")
def test_a_path_is_relative_to_the_file_it_is_written_in(write: Write) -> None:
    write("base: two\nname: mine\n", "lab/hardware/mine.yaml")
    run = write(RUN.format(cluster="hardware/mine.yaml"), "lab/run.yaml")
    assert load_run(run).cluster.name == "mine"


@pytest.mark.usefixtures("library")
def test_a_run_may_start_from_another(write: Write) -> None:
    run = load_run(write("base: small\ntraining: {global_batch_size: 128}\n"))
    assert run.training.global_batch_size == 128
    assert run.training.seq_length == 4096


@pytest.mark.usefixtures("library")
def test_bases_that_never_end_are_refused(write: Write) -> None:
    write("base: b.yaml\n", "a.yaml")
    path = write("base: a.yaml\n", "b.yaml")
    with pytest.raises(SpecError, match="refer to one another"):
        load_cluster(path)


@pytest.mark.usefixtures("library")
def test_an_error_in_a_named_file_points_into_that_file(library: Path, write: Write) -> None:
    link = library / "links" / "nv.yaml"
    link.write_text(link.read_text().replace("1 us", "1 GB"))
    with pytest.raises(SpecError) as caught:
        load_run(write(RUN.format(cluster="two")))
    places = {(problem.file, problem.line, problem.key_path) for problem in caught.value.problems}
    assert (str(link), 4, "cluster.scale_out.link.latency_s") in places


@pytest.mark.usefixtures("library")
def test_an_unknown_name_and_other_errors_are_told_together(write: Write) -> None:
    text = RUN.format(cluster="tow").replace("tp: 4", "tp: x").replace("tiny", "tinny")
    with pytest.raises(SpecError) as caught:
        load_run(write(text))
    problems = {problem.key_path: problem for problem in caught.value.problems}
    assert set(problems) == {"model", "cluster", "parallelism.tp"}
    assert (problems["cluster"].line, problems["cluster"].suggestion) == (2, "two")
    assert problems["model"].suggestion == "tiny"


def test_the_models_rules_hold_without_a_run(write: Write) -> None:
    text = "name: m\nnum_hidden_layers: 2\nhidden_size: 64\nintermediate_size: 64\nvocab_size: 100\n"
    good = load_model(write(text + "num_attention_heads: 4\n"))
    assert isinstance(good, ModelSpec)
    with pytest.raises(SpecError) as caught:
        load_model(write(text + "num_attention_heads: 4\nnum_key_value_heads: 3\n"))
    assert [(problem.key_path, problem.line) for problem in caught.value.problems] == [
        ("num_key_value_heads", 7)
    ]


def test_loading_needs_no_slow_imports() -> None:
    code = (
        "import sys; from simulator.spec.load import load_run; load_run('llama3.1-405b-16384-h100');"
        "assert not {'pint', 'numpy', 'scipy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_offers_its_public_names_lazily() -> None:
    code = (
        "import sys, simulator; assert 'pydantic' not in sys.modules;"
        "assert set(simulator.__all__) <= set(dir(simulator));"
        "from simulator.spec.load import load_run; assert simulator.load_run is load_run"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_run_names_the_nearest_that_ships() -> None:
    with pytest.raises(
        SpecError, match=r"must name one of the \d+ runs(.|\n)*try:  llama3.1-405b-16384-h100"
    ):
        load_run("llama3.1-405b-16384-h10")


def test_a_missing_file_with_the_name_of_one_that_ships_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no such file\n  try:  llama3.1-405b-16384-h100: that one ships"):
        load_run(tmp_path / "llama3.1-405b-16384-h100.yaml")


def test_a_cluster_breaks_its_rules_without_a_run(write: Write) -> None:
    path = write("base: dgx-h200\nscale_up: {domain_size: 12}\nfabric: roc\ndevice: {name: chip}\n")
    with pytest.raises(SpecError) as caught:
        load_cluster(path)
    assert [(problem.key_path, problem.line) for problem in caught.value.problems] == [
        ("scale_up.domain_size", 2),
        ("device.kernels", 4),
        ("fabric", 3),
    ]


@pytest.mark.parametrize(
    "module", ["errors", "fields", "keys", "load", "rules.not_modelled", "rules.violation", "run", "schema"]
)
def test_every_module_can_be_imported_first(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import simulator.spec.{module}"], check=True)


def test_folders_of_the_same_name_in_the_working_directory_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "workloads" / "models").mkdir(parents=True)
    (tmp_path / "hardware_profiles" / "clusters").mkdir(parents=True)
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.append({str(root)!r}); from simulator.spec.load import load_run; "
    code += "load_run('llama3.1-405b-16384-h100')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_cluster_is_a_cluster_spec() -> None:
    assert isinstance(load_cluster("gb200"), ClusterSpec)


def test_files_are_named_relative_to_the_file_that_names_them(
    good: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kernels.yaml", "site.yaml", "orders.csv"):
        write("", f"deep/{name}")
    cluster = "  name: lab\n  fabric: ./site.yaml"
    text = good.replace("  name: lab", cluster).replace("kernels: h100-sxm5-80gb", "kernels: kernels.yaml")
    path = write(text.replace("  pp: 2", "  pp: 2\n  schedule: orders.csv"), "deep/run.yaml")
    monkeypatch.chdir(path.parent.parent)
    run = load_run("deep/run.yaml")
    named = (run.cluster.device.kernels, run.cluster.fabric, run.parallelism.schedule)
    assert [Path(name).parent for name in named] == [path.parent] * 3
    given = load_run("deep/run.yaml", ["cluster.fabric=deep/site.yaml"])
    assert given.cluster.fabric == run.cluster.fabric


@pytest.mark.parametrize("key_path", ["cluster.device.kernels", "cluster.fabric", "parallelism.schedule"])
def test_a_file_that_is_not_there_is_told_with_its_neighbours(key_path: str, good: str, write: Write) -> None:
    ending = "csv" if "schedule" in key_path else "yaml"
    near = write("", f"mine.{ending}")
    path = write(good)
    with pytest.raises(SpecError) as caught:
        load_run(path, [f"{key_path}={near.parent}/mime.{ending}"])
    (problem,) = caught.value.problems
    assert (problem.file, problem.key_path, problem.suggestion) == ("--set", key_path, near.name)
