"""Rows become the runs that were measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.spec.load import load_run
from simulator.spec.run import RunSpec
from simulator.validation.predict import anonymous, express
from simulator.validation.published import PublishedRun
from simulator.validation.row_to_run import NotExpressibleError, refusals, to_run
from simulator.validation.rows import shipped_rows
from simulator.validation.software import generation_of

ROWS = {row.run_id: row for row in shipped_rows()}
SAME = {
    "sc21-table1-1.7b": "megatron-1.7b-32-a100-sc21",
    "sc21-table1-3.6b": "megatron-3.6b-64-a100-sc21",
    "sc21-table1-18.4b": "megatron-18.4b-256-a100-sc21",
    "sc21-table1-39.1b": "megatron-39.1b-512-a100-sc21",
    "sc21-table1-145.6b": "megatron-145.6b-1536-a100-sc21",
    "sc21-table1-310.1b": "megatron-310.1b-1920-a100-sc21",
    "sc21-table1-1008.0b": "megatron-1t-3072-a100-sc21",
    "kort22-tab5-meg-22b-full": "megatron-22b-8-a100-full-recompute",
    "kort22-tab5-meg-22b-seqsel": "megatron-22b-8-a100-sequence-parallel",
    "kort22-tab5-meg-175b-full": "megatron-175b-64-a100-full-recompute",
    "kort22-tab5-meg-175b-seqsel": "megatron-175b-64-a100-sequence-parallel",
    "kort22-tab5-meg-1t-full": "megatron-1t-512-a100-full-recompute",
    "kort22-tab5-meg-1t-seqsel": "megatron-1t-512-a100-sequence-parallel",
}


def settings(run: RunSpec) -> RunSpec:
    """What decides a prediction, with the defaults that mean the same thing written one way."""
    p = run.parallelism
    alone = run.dp == 1
    return replace(
        anonymous(run),
        assumptions=(),
        model=replace(run.model, name="", source="", notes="", published_parameters=0.0),
        parallelism=replace(p, dp=run.dp, schedule=run.schedule, sequence_parallel=run.sequence_parallel),
        runtime=replace(
            run.runtime,
            overlap_p2p=None if p.pp == 1 or p.vp == 1 else run.runtime.overlap_p2p,
            scatter_gather=run.runtime.scatter_gather and p.pp > 1,
            overlap_grad_reduce=run.runtime.overlap_grad_reduce and not alone,
            overlap_param_gather=run.runtime.overlap_param_gather and not alone and p.zero > 0,
        ),
    )


@pytest.mark.parametrize(("row", "name"), SAME.items())
def test_a_row_says_the_same_as_its_run_file(row: str, name: str) -> None:
    assert settings(to_run(ROWS[row])) == settings(load_run(name))


def test_every_row_is_a_run_or_has_a_reason() -> None:
    accepted, refused = express(ROWS.values())
    assert len(accepted) + len(refused) == len(ROWS)
    assert accepted
    assert all(row.reasons and all(row.reasons) for row in refused)


def test_a_row_of_high_confidence_lacks_no_fact() -> None:
    for row in ROWS.values():
        if row.identity.confidence == "high":
            try:
                to_run(row)
            except NotExpressibleError as reason:
                assert "not published" not in str(reason), row.run_id


def test_recipes_are_not_dropped() -> None:
    run = to_run(ROWS["dgxc-v24.11.1-llama31-8b-h100-bf16-8g"])
    assert (run.parallelism.cp, run.model.num_key_value_heads, run.cluster.name) == (2, 8, "dgx-h100-ndr")
    assert run.model.position_embedding == "rope"


def test_a_missing_fact_is_the_reason() -> None:
    row = ROWS["sc21-table1-1.7b"]
    with pytest.raises(NotExpressibleError, match="micro_batch_size is not published"):
        to_run(replace(row, layout=replace(row.layout, micro_batch_size=None)))
    with pytest.raises(NotExpressibleError, match="hardware z80"):
        to_run(replace(row, machine=replace(row.machine, hardware="z80")))


def test_what_the_simulator_refuses_is_named_by_its_rule() -> None:
    row = ROWS["sc21-table1-1.7b"]
    odd = replace(row, layout=replace(row.layout, tp=5))
    assert any("parallelism.tp" in reason or "gpus" in reason for reason in refusals(to_run(odd)))


def test_names_decide_nothing() -> None:
    def renamed(row: PublishedRun) -> PublishedRun:
        return replace(
            row,
            identity=replace(row.identity, run_id="x", group="x", collection="x", source="x"),
            architecture=replace(row.architecture, model="x"),
        )

    for row in ROWS.values():
        try:
            run = to_run(row)
        except NotExpressibleError:
            continue
        assert anonymous(to_run(renamed(row))) == anonymous(run)


def test_software_of_2021_overlaps_less_than_that_of_2022() -> None:
    older, newer = generation_of("Megatron-LM v2 (2021)"), generation_of("Megatron-LM (2022)")
    assert older.runtime["tp_dgrad_overlap"] is False
    assert "tp_dgrad_overlap" not in newer.runtime
    assert generation_of("NeMo container 26.06").grad_dtype == "params"
    assert generation_of("Megatron-LM core r0.8").name == "Megatron-Core"
