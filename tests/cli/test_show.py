"""``stepcast show`` lists what ships and explains one piece of it."""

import dataclasses

import pytest

from simulator.cli.app import main
from simulator.spec import catalogue
from simulator.spec.run import Parallelism


@pytest.fixture
def show(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["show", *arguments])
        return ended.value.code, *capsys.readouterr()

    return call


def first_words(text):
    return {line.split()[0] for line in text.splitlines() if line.startswith("  ")}


def test_hardware_lists_every_device_cluster_and_link(show):
    code, out, err = show("hardware")
    assert (code, err) == (0, "")
    for kind in ("devices", "clusters", "links"):
        assert set(catalogue.names(kind)) <= first_words(out)


def test_models_lists_every_model(show):
    code, out, _ = show("models")
    assert code == 0
    assert set(catalogue.names("models")) <= first_words(out)


def test_keys_lists_every_way_to_split_and_its_default(show):
    code, out, err = show("keys")
    assert (code, err) == (0, "")
    fields = [f"parallelism.{field.name}" for field in dataclasses.fields(Parallelism)]
    assert set(fields) <= first_words(out)
    assert "model.hidden_size" not in out


def test_keys_of_a_section_and_the_nearest_name(show):
    code, out, _ = show("keys", "training.documents")
    assert code == 0
    assert first_words(out) >= {"training.documents.mean", "training.documents.lengths[]"}
    assert "gpus" not in first_words(out)
    code, _, err = show("keys", "paralelism")
    assert code == 2
    assert "parallelism" in err


@pytest.mark.parametrize("name", ["h100", "h100-sxm5-80gb", "H100-SXM5-80GB"])
def test_a_device_is_shown_by_name_or_alias_with_its_sources(show, name):
    code, out, _ = show(name)
    assert code == 0
    bf16 = next(line.split() for line in out.splitlines() if line.startswith("peak_flops.bf16"))
    assert bf16[1:3] == ["989.4", "TFLOP/s"]
    footnote = next(line for line in out.splitlines() if line.startswith(bf16[3]))
    assert "whitepaper" in footnote


def test_a_device_is_shown_with_how_well_its_kernels_are_known(show):
    _, out, _ = show("h100")
    assert "Kernel times (profile h100-sxm5-80gb" in out
    assert {"gemm", "attention", "copy"} <= first_words(out[out.index("Kernel times") :])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dgx-h100-ndr", "scale_out.link.bandwidth            50.00 GB/s"),
        ("nvlink4", "bandwidth  450.0 GB/s"),
        ("llama3-8b", "hidden_size              4,096"),
    ],
)
def test_clusters_links_and_models_are_shown_by_name(show, name, said):
    code, out, _ = show(name)
    assert code == 0
    assert said in out


def test_an_unknown_name_gets_the_nearest_one(show):
    code, out, err = show("h10O")
    assert (code, out) == (2, "")
    assert "try:  h100" in err


def test_runs_lists_every_run_and_sweep(show):
    code, out, _ = show("runs")
    assert code == 0
    assert {*catalogue.names("runs"), *catalogue.names("sweeps")} <= first_words(out)


def test_a_file_is_shown_as_what_it_holds(show, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("{base: nvlink4, name: mine, bandwidth: 1 GB/s}")
    code, out, _ = show(str(path))
    assert code == 0
    assert "bandwidth  1.000 GB/s" in out


def test_a_device_without_a_kernel_profile_is_shown_and_told_what_a_run_needs(show, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("{base: h200, name: mine, aliases: []}")
    code, out, err = show(str(path))
    assert (code, err) == (0, "")
    assert "No kernel profile: a run needs 'kernels:'" in out


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("llama3-8b-8-h100", "stepcast run llama3-8b-8-h100"),
        ("llama3-70b-512-h100", "stepcast sweep llama3-70b-512-h100"),
        ("1f1b", "stepcast show schedule 1f1b"),
        ("nonesuch", "stepcast show hardware"),
    ],
)
def test_what_has_a_command_of_its_own_is_shown_that_command(show, name, remedy):
    code, out, err = show(name)
    assert (code, out) == (2, "")
    assert remedy in err


@pytest.mark.parametrize("kind", ["devices", "clusters", "links", "models"])
def test_everything_that_ships_can_be_shown(show, kind):
    for name in catalogue.names(kind):
        assert show(name)[0] == 0


@pytest.mark.parametrize("width", [60, 80, 120])
def test_keys_are_whole_on_any_terminal(show, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("simulator.cli.show_keys.WIDTH", width)
    code, out, _ = show("keys", "parallelism")
    assert code == 0
    assert "parallelism.microbatch_group_size" in first_words(out)
    assert all(len(line.rstrip()) <= width for line in out.splitlines())
