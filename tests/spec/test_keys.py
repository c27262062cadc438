"""The table of keys is complete and says what each key means."""

from simulator.graph.flops import CONVENTIONS
from simulator.schedule.registry import SCHEDULES as REGISTERED
from simulator.spec.keys import Key, keys_of
from simulator.spec.run import FLOPS_CONVENTIONS, SCHEDULES, RunSpec

KEYS = {key.path: key for key in keys_of(RunSpec)}


def test_every_key_has_a_meaning_and_says_what_it_accepts() -> None:
    assert [key.path for key in KEYS.values() if not key.meaning.endswith(".") or not key.accepts] == []


def test_paths_reach_into_sections_lists_and_names() -> None:
    assert {
        "gpus",
        "model.hidden_size",
        "cluster.scale_out.tiers[].nodes",
        "cluster.device.peak_flops.*",
    } <= set(KEYS)


def test_a_row_says_unit_and_default() -> None:
    bandwidth, launch = KEYS["cluster.device.memory_bandwidth"], KEYS["cluster.host.kernel_launch_s"]
    assert (bandwidth.unit, bandwidth.default) == ("B/s", "required")
    assert (launch.unit, launch.default) == ("s", "4e-06")
    assert KEYS["training.precision"] == Key(
        path="training.precision",
        accepts="fp32, tf32, fp16, bf16, fp8, mxfp8 or nvfp4",
        unit="",
        default="bf16",
        meaning="Number format of the linear layers.",
    )


def test_the_names_a_run_may_give_are_those_that_are_registered() -> None:
    assert tuple(CONVENTIONS) == FLOPS_CONVENTIONS
    assert set(REGISTERED) == set(SCHEDULES)
