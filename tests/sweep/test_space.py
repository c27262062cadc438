from collections import Counter

import pytest

from simulator.spec.errors import SpecError
from simulator.spec.rules import broken_layout_rules
from simulator.sweep.choices import with_key
from simulator.sweep.read import read_sweep
from simulator.sweep.search import enumerate_layouts
from simulator.sweep.space import Census

RUN = """
run:
  model: llama3-8b
  cluster: h100
  gpus: {gpus}
  parallelism: {parallelism}
  training: {{seq_length: 4096, micro_batch_size: 1, global_batch_size: 64}}
"""


def sweep_of(sweep_file, gpus="16", parallelism="{tp: 1}", rest=""):
    return read_sweep(sweep_file(RUN.format(gpus=gpus, parallelism=parallelism) + rest))


def labels(sweep):
    return [layout.labels for layout in sweep.space.layouts(Census())]


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("[1, 2, 8]", [1, 2, 8]),
        ("{range: [1, 4]}", [1, 2, 4]),  # 3 divides no 16 GPUs
        ("{range: [1, 8], factor: 2}", [1, 2, 4, 8]),
        ("{range: [2, 8], step: 2}", [2, 4, 8]),
        ("'powers_of_two(1, gpus_per_node)'", [1, 2, 4, 8]),
        ("gpus // 4", [4]),
        ("[1, 'world_size / 8', 2]", [1, 2]),
    ],
)
def test_lists_ranges_and_expressions(sweep_file, written, values):
    assert [label for (label,) in labels(sweep_of(sweep_file, parallelism=f"{{tp: {written}}}"))] == values


def test_a_list_of_lists_is_the_axis_of_a_key_that_takes_a_list(sweep_file):
    rest = "  runtime: {}\n"
    text = RUN.format(gpus=8, parallelism="{tp: 2}").replace(
        "global_batch_size: 64}",
        "global_batch_size: 64, recompute: {granularity: selective, modules: [[core_attn], [mlp]]}}",
    )
    assert labels(read_sweep(sweep_file(text + rest))) == [(["core_attn"],), (["mlp"],)]


def test_sections_are_values_too(sweep_file):
    sweep = sweep_of(sweep_file, parallelism="[{tp: 2, pp: 4}, {tp: 4, pp: 2}]")
    assert [layout.run.parallelism.pp for layout in sweep.space.layouts(Census())] == [4, 2]


def test_an_expression_sees_the_axes_it_names_whatever_their_order(sweep_file):
    sweep = sweep_of(sweep_file, gpus="8 * tp", parallelism="{tp: [1, 2]}")
    assert [layout.run.gpus for layout in sweep.space.layouts(Census())] == [8, 16]


def test_clusters_are_compared_at_equal_price(sweep_file):
    text = """
    run:
      model: llama3-8b
      cluster:
        - {base: dgx-a100, price_per_gpu_hour: 2}
        - {base: dgx-h100-ndr, price_per_gpu_hour: 4}
      gpus: floor(64 / price_per_gpu_hour)
      parallelism: {}
      training: {seq_length: 4096, micro_batch_size: 1, global_batch_size: 64}
    """
    assert labels(read_sweep(sweep_file(text))) == [("dgx-a100", 32), ("dgx-h100-ndr", 16)]


def test_illegal_combinations_are_counted_by_the_first_rule_they_break(sweep_file):
    sweep = sweep_of(
        sweep_file,
        parallelism="{tp: [1, 3, 8, 16], vp: [1, 2]}",
        rest="constraints: {inside_a_node: tp <= gpus_per_node}\n",
    )
    census = Census()
    legal = list(sweep.space.layouts(census))
    assert census.combinations == 8
    assert census.legal == len(legal) == 2
    assert census.illegal == {"inside_a_node": 2, "world_size": 2, "virtual_stages": 2}
    assert sum(census.illegal.values()) + census.legal == census.combinations
    assert "must be a multiple of tp·pp·cp" in census.examples["world_size"]


def test_what_is_not_modelled_is_counted_as_such(sweep_file):
    text = """
    run:
      model: [llama3-8b, nemotron-h-56b]
      cluster: h100
      gpus: 8
      parallelism: {tp: 8}
      training: {seq_length: 4096, micro_batch_size: 1, global_batch_size: 8}
    """
    census = Census()
    list(read_sweep(sweep_file(text)).space.layouts(census))
    assert census.legal >= 1
    assert set(census.illegal) <= {"not_modelled"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RUN.format(gpus="[]", parallelism="{}"), ["run.gpus", "empty list"]),
        (RUN.format(gpus=8, parallelism="{tq: [1, 2]}"), ["run.parallelism.tq", "unknown key", "tp"]),
        (RUN.format(gpus="[8, eight]", parallelism="{}"), ["run.gpus", "no name 'eight'"]),
        (RUN.format(gpus="[8, 0]", parallelism="{}"), ["run.gpus", "at least 1"]),
        (RUN.format(gpus="8 * tp", parallelism="{tp: gpus / 8}"), ["need each other"]),
        (RUN.format(gpus="{range: [8, 4]}", parallelism="{}"), ["run.gpus", "empty"]),
        (RUN.format(gpus=8, parallelism="{}") + "constraints: {a: tp <}", ["constraints.a", "no expression"]),
        (RUN.format(gpus=8, parallelism="{}") + "constraints: {a: gpu > 2}", ["constraints.a", "gpus"]),
        (RUN.format(gpus=8, parallelism="{tp: 2 * tp}"), ["run.parallelism.tp", "needs its own value"]),
        (RUN.format(gpus=8, parallelism="{}") + "objectve: mfu", ["objectve", "unknown key", "objective"]),
        (RUN.format(gpus=8, parallelism="{}") + "gpus: 8", ["gpus: 8", "unknown key", "run.gpus"]),
        (RUN.format(gpus=8, parallelism="{}") + "objective: mfu", ["objective", "step_time"]),
        ("objective: step_time", ["run", "required"]),
        (
            RUN.format(gpus=8, parallelism="{}").replace("llama3-8b", "[llama3-8b, lama]"),
            ["run.model", "lama"],
        ),
    ],
)
def test_bad_files_say_which_key_and_what_is_allowed(sweep_file, text, says):
    with pytest.raises(SpecError) as caught:
        read_sweep(sweep_file(text))
    assert all(part in str(caught.value) for part in says), str(caught.value)


def test_a_space_without_legal_layouts_says_why_and_what_to_change(sweep_file):
    sweep = sweep_of(sweep_file, parallelism="{tp: [1, 2]}", rest="constraints: {none: tp > 8}\n")
    with pytest.raises(SpecError, match=r"none of the 2 combinations is legal: none excludes 2"):
        enumerate_layouts(sweep)


def test_too_many_combinations_are_refused_with_their_number(sweep_file):
    many = "{range: [1, 1000]}"
    with pytest.raises(SpecError, match=r"1,000,000,000 combinations are too many.*\n.*tp has 1,000"):
        sweep_of(sweep_file, gpus=many, parallelism=f"{{tp: {many}, pp: {many}}}")


def test_expressions_that_multiply_are_counted_as_they_unfold(sweep_file, monkeypatch):
    monkeypatch.setattr("simulator.sweep.space.MAX_COMBINATIONS", 100)
    sweep = sweep_of(sweep_file, parallelism="{tp: 'range(1, gpus)', pp: 'range(1, gpus)'}")
    with pytest.raises(SpecError, match="more than 100 combinations are too many"):
        enumerate_layouts(sweep)


def test_overrides_reach_the_sweep_and_its_run(sweep_file):
    sweep = read_sweep(sweep_file(), ["search=best", "gpus=8", "run.parallelism.tp=[1, 2]"])
    assert sweep.settings.search == "best"
    assert sweep.space.base.gpus == 8
    assert {axis.key: len(axis.choices) for axis in sweep.space.axes}["parallelism.tp"] == 2


def test_the_search_is_not_part_of_the_fingerprint_but_the_space_is(sweep_file):
    path = sweep_file()
    fingerprint = read_sweep(path).fingerprint
    assert read_sweep(path, ["search=best"]).fingerprint == fingerprint
    assert read_sweep(path, ["gpus=8"]).fingerprint != fingerprint
    assert read_sweep(path, ["training.seq_length=2048"]).fingerprint != fingerprint


def test_with_key_changes_one_value(sweep_file):
    run = sweep_of(sweep_file).space.base
    changed = with_key(run, ("training", "micro_batch_size"), 2)
    assert changed.training.micro_batch_size == 2
    assert with_key(changed, ("training", "micro_batch_size"), 1) == run


MIXED = """
run:
  model: [llama3-8b, mixtral-8x7b]
  cluster: h100
  gpus: [8, 12]
  parallelism:
    tp: [1, 2, 3]
    pp: [1, 2]
    vp: 'divisors(num_hidden_layers / pp / 4)'
    ep: [1, 'max(2, 8 // dp)']
    schedule: ["", zb-v, dualpipe]
    zero: [1, 3]
  training: {seq_length: 4096, micro_batch_size: [1, 2], global_batch_size: 24}
  runtime: [{tp_overlap: true}, {ep_overlap: true}, {}]
constraints: {narrow: tp * pp < 6}
"""


def asked_anew(space):
    """Every combination with the name of the first rule it breaks, none of it remembered."""

    def below(run, labels):
        if len(labels) == len(space.axes):
            met = all(constraint.met(run) for constraint in space.constraints)
            broken = [*([] if met else ["narrow"]), *(rule.name for rule in broken_layout_rules(run))]
            yield labels, run, broken[0] if broken else ""
            return
        axis = space.axes[len(labels)]
        for choice in axis.values(run):
            yield from below(with_key(run, axis.path, choice.value), (*labels, choice.label))

    yield from below(space.base, ())


def test_rules_that_are_remembered_say_what_they_say_when_asked_anew(sweep_file):
    space, census = read_sweep(sweep_file(MIXED)).space, Census()
    expected = list(asked_anew(space))
    found = [(layout.labels, layout.run) for layout in space.layouts(census)]
    assert found == [(labels, run) for labels, run, broken in expected if not broken]
    assert census.illegal == Counter(broken for _, _, broken in expected if broken)
    assert len(census.illegal) > 6
    assert census.legal > 20
