"""Sustained factors: fitted on what a row is not among, transferred where nothing else was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.cost.sustained import Sustained
from simulator.spec.load import load_device, load_run
from simulator.validation.predict import Prediction, Simulations, Task, express, outcome
from simulator.validation.rows import parse_rows, shipped_rows
from simulator.validation.sustained import (
    BENCHMARK_ERROR,
    PROBES,
    STEP,
    Probed,
    class_factors,
    fit,
    left_out,
    votes_of,
)
from simulator.validation.validate import cross_validate, validate

HEADER = "run_id,group,collection,confidence,source,hardware,gpus,model,seq_length,precision\n"
H100 = load_device("h100-sxm5-80gb")
DEVICES = {
    "old": replace(H100, name="old", architecture="ampere"),
    "new": replace(H100, name="new"),
    "newer": replace(H100, name="newer"),
    "starved": replace(H100, name="starved", tdp_w=H100.tdp_w / 4),
}


def probed(
    truth: float, *, group: str = "g", device: str = "old", precision: str = "bf16", fixed: float = 0.2
) -> Probed:
    """A row that takes fixed + 1/truth, on a device whose full rate would give fixed + 1."""
    name = f"{device}-{group}-{truth}-{precision}"
    [row] = parse_rows(f"{HEADER}{name},{group},c,high,s,{device},8,m,1,{precision}\n", "t.csv")
    made = Prediction(
        row=row,
        measured_s=fixed + 1 / truth,
        predicted_s=fixed + 1,
        interval_s=(1, 1),
        peak_memory_bytes=1,
        device=device,
        hardware_flops=1,
        peak_flops=1,
    )
    return Probed(prediction=made, seconds=tuple(fixed + 1 / probe for probe in PROBES))


@pytest.mark.parametrize("truth", [0.5, 0.7, 0.93, 1.1])
def test_the_factor_of_exact_data_is_found(truth: float) -> None:
    assert fit([probed(truth)]) == pytest.approx(truth, abs=STEP)


def by_group(prediction: Prediction) -> str:
    return prediction.row.identity.group


def test_a_group_of_many_rows_has_one_vote() -> None:
    crowd = [probed(0.5, group="crowd") for _ in range(9)]
    rows = [*crowd, *(probed(0.8, group=name) for name in "bcd")]
    [found] = class_factors(rows, DEVICES)
    assert found.factor == pytest.approx(0.8, abs=0.02)


def test_a_row_never_sees_its_own_group() -> None:
    rows = [probed(0.5, group="odd"), probed(0.8, group="b"), probed(0.8, group="c")]
    factors = left_out(rows, by_group, DEVICES)
    assert factors["old-odd-0.5-bf16"].sustained.factor == pytest.approx(0.8, abs=STEP)
    assert not factors["old-odd-0.5-bf16"].transferred


def test_a_lone_group_takes_its_siblings_factor_and_says_so() -> None:
    rows = [
        probed(0.5, group="a", device="old"),
        probed(0.7, group="b", device="new"),
        probed(0.9, group="c", device="newer"),
        probed(0.6, group="d", device="newer", precision="fp8-cs"),
    ]
    transferred = left_out(rows, by_group, DEVICES)["new-b-0.7-bf16"]
    assert transferred.transferred
    assert (
        0.8 < transferred.sustained.factor < 0.9
    )  # nearest: the same architecture and the same width of numbers


def test_the_same_width_on_a_sibling_says_more_than_another_width_of_its_own() -> None:
    rows = [
        probed(0.5, group="a", device="new"),
        probed(0.9, group="b", device="newer"),
        *(probed(0.6, group=name, device="new", precision="fp8-cs") for name in "cd"),
    ]
    factor = left_out(rows, by_group, DEVICES)["new-a-0.5-bf16"]
    assert factor.transferred
    assert factor.sustained.factor > 0.75  # nearer to the one than to the two


def test_a_single_odd_group_is_outvoted_by_relatives() -> None:
    odd = probed(0.4, group="odd", device="new", fixed=3.0)  # little of its time scales with the rate
    relatives = [probed(0.8, group=name, device="newer") for name in "bcdef"]
    wanted = probed(0.8, group="a", device="new")
    factor = left_out([odd, wanted, *relatives], by_group, DEVICES)["new-a-0.8-bf16"]
    assert not factor.transferred
    assert factor.sustained.factor == pytest.approx(0.8, abs=0.02)


def test_what_hardly_scales_with_the_rate_hardly_votes() -> None:
    assert probed(0.8, fixed=0.0).sensitivity == pytest.approx(1.0)
    assert probed(0.8, fixed=9.0).sensitivity < 0.15
    [vote] = votes_of([probed(0.8, fixed=9.0)])
    assert vote.weight < 0.15**2


def test_without_any_other_row_nothing_is_changed() -> None:
    [factor] = left_out([probed(0.5)], by_group, DEVICES).values()
    assert (factor.sustained.factor, factor.transferred) == (1.0, True)


def test_a_device_with_less_power_keeps_less_of_its_clock() -> None:
    rows = [
        probed(0.8, group="a", device="new"),
        probed(0.8, group="b", device="newer"),
        probed(0.5, device="starved"),
    ]
    factor = left_out(rows, by_group, DEVICES)["starved-g-0.5-bf16"]
    assert factor.transferred
    assert factor.sustained.factor == pytest.approx(0.4, abs=STEP)  # a quarter of the power: half the clock


def test_the_error_is_how_far_groups_differ_and_that_of_benchmarks_where_few_vote() -> None:
    def error(*truths: float) -> float:
        rows = [probed(truth, group=f"{index}", fixed=0.0) for index, truth in enumerate(truths)]
        [found] = class_factors(rows, DEVICES)
        return found.error

    alike, apart = error(*[0.8] * 24), error(*[0.6, 0.7, 0.8, 0.9, 1.0] * 5)
    assert alike < 0.05
    assert apart > 2 * alike
    assert error(0.8) == pytest.approx(BENCHMARK_ERROR / 2**0.5, abs=STEP)


def test_class_factors_show_how_far_groups_differ() -> None:
    [found] = class_factors([probed(0.6, group="a"), probed(0.8, group="b")], DEVICES)
    assert (found.device, found.precision, found.rows, found.groups) == ("old", "16-bit", 2, 2)
    assert found.spread == pytest.approx((0.6, 0.8), abs=STEP)
    assert found.spread[0] < found.factor < found.spread[1]


def test_step_times_between_probes_are_interpolated() -> None:
    """Interpolated between probes, a simulated step time is right to a quarter of a per cent."""
    run = load_run("megatron-22b-8-a100-sequence-parallel")
    seconds = {}
    for factor in (*PROBES, 0.9, 0.68):
        result = outcome(Task(run=run, sustained=Sustained(factor)))
        assert not isinstance(result, str)
        seconds[factor] = result.step_time_s
    row = replace(probed(1.0), seconds=tuple(seconds[probe] for probe in PROBES))
    for factor in (0.9, 0.68):
        assert row.at(factor) == pytest.approx(seconds[factor], rel=0.0025)


def test_cross_validation_of_shipped_rows() -> None:
    rows = [
        row for row in shipped_rows() if row.run_id.startswith(("sc21-table1-1.7b", "kort22-tab5-meg-22b"))
    ]
    simulations = Simulations(workers=1)
    shipped = validate(rows, simulations)
    crossed = cross_validate(rows, simulations)
    assert len(shipped.counted) == 3
    by_group = crossed.protocols["leave-one-group-out"]
    assert set(by_group.factors) == {row.run_id for row in rows}
    assert not by_group.transferred
    one, other = by_group.factors["sc21-table1-1.7b"], by_group.factors["kort22-tab5-meg-22b-full"]
    sc21 = [p for p in shipped.predictions if p.row.run_id.startswith("sc21")]
    assert (other < 1.0) == (sc21[0].error < 0)  # fitted on the other paper
    assert one != 1.0
    assert all(
        p.row.run_id in crossed.protocols["leave-one-device-out"].transferred for p in by_group.counted
    )


def test_a_failing_simulation_hides_no_other_row() -> None:
    accepted, _ = express(row for row in shipped_rows() if row.run_id == "sc21-table1-1.7b")
    cluster = accepted[0].run.cluster
    idle = replace(cluster, device=replace(cluster.device, peak_flops={}))
    broken = replace(accepted[0], run=replace(accepted[0].run, cluster=idle))
    assert isinstance(outcome(Task(run=broken.run)), str)
    made, failed = Simulations(workers=1).predict([broken])
    assert (made, len(failed)) == ([], 1)
    assert failed[0].reasons[0].startswith("fails: ")
