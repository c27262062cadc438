"""A schedule from a user's CSV file as the schedule of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from simulator.engine.messages import Pipeline, blocking_exchanges, waiting_for_ever
from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule
from simulator.schedule.legality import unpaired
from simulator.schedule.notation import format_action
from simulator.schedule.user_csv import UserSchedule, read_orders
from simulator.spec.errors import Problem, SpecError, listed
from simulator.spec.run import RunSpec


def user_schedule(run: RunSpec) -> Schedule:
    """The schedule in the file that the run names.

    Raises SpecError where the file is no legal schedule (its line, the rule), or not one for this run.
    """
    file = run.schedule
    read, schedule = _read(file, Path(file).stat().st_mtime_ns)
    problems = [Problem(file=file, rule=rule, suggestion=remedy) for rule, remedy in _misfits(read, run)]
    if problems:
        raise SpecError(*problems)
    return schedule


@lru_cache(maxsize=32)
def _read(file: str, modified: int) -> tuple[UserSchedule, Schedule]:
    """Read once as long as the file stays as it is."""
    read = read_orders(Path(file))
    return read, _schedule(file, read)


def _misfits(read: UserSchedule, run: RunSpec) -> list[tuple[str, str]]:
    """What of a run the file does not fit: rules and remedies."""
    p = run.parallelism
    found = []
    for key, there, here in (
        ("parallelism.pp", read.devices, p.pp),
        ("parallelism.vp", read.chunks, p.vp),
        ("microbatches, global_batch_size / (micro_batch_size·dp)", read.microbatches, run.microbatches),
    ):
        if there != here:
            found.append((f"the file is a schedule of {there}, the run's {key} is {here}", f"{there}"))
    if not found and not _neighbours(read.placement):
        rule = "stages that follow each other must be on one device or on neighbours on the ring"
        found.append((rule, "the placement of interleaved-1f1b or of zb-v"))
    if not found and read.directions == 2 and not _mirrored(read.placement):
        rule = "with two directions, device i and the i-th from the end must hold the same two stages"
        found.append((rule, "the placement of dualpipe"))
    sharded = p.zero > 1 or p.shard_size or p.offload.optimizer != "device"
    if not found and read.directions == 2 and sharded:
        rule = "two directions, so two copies of each stage, are modelled with ZeRO 0 or 1"
        found.append((rule, "parallelism.zero: 1, without shard_size and offload"))
    if not found and run.runtime.overlap_p2p is False and p.vp == 1:
        found += _blocked(read, batched=run.runtime.batch_p2p)
    return found


def _blocked(read: UserSchedule, *, batched: bool) -> list[tuple[str, str]]:
    """What keeps messages from blocking the devices between which they go (``overlap_p2p: false``)."""
    remedy = "runtime.overlap_p2p: true, or leave it out"
    if read.directions == 2 or any(action.partner for order in read.orders for action in order):
        return [("pairs and two directions, whose messages run beside compute; overlap_p2p is false", remedy)]
    pipeline = Pipeline(read.placement, read.devices)
    waiting = waiting_for_ever(blocking_exchanges(pipeline, read.orders, batched=batched))
    if not waiting:
        return []
    places = listed(f"device {device} {_before(read.orders[device], at)}" for device, at in waiting.items())
    rule = "messages that block (overlap_p2p is false) leave devices waiting for each other for ever: "
    return [(rule + places.replace(" or ", " and "), f"{remedy}; or another order")]


def _before(order: Order, at: int) -> str:
    return f"before {format_action(order[at])}" if at < len(order) else "after its last action"


def _neighbours(placement: Sequence[Sequence[int]]) -> bool:
    devices = len(placement)
    owners = {stage: device for device, held in enumerate(placement) for stage in held}
    return all(
        (owners[stage + 1] - owners[stage]) % devices in (0, 1, devices - 1)
        for stage in range(len(owners) - 1)
    )


def _mirrored(placement: Sequence[Sequence[int]]) -> bool:
    return all(
        list(held) == list(reversed(other)) and len(held) == 2
        for held, other in zip(placement, reversed(placement), strict=True)
    )


def _schedule(file: str, read: UserSchedule) -> Schedule:
    def order(p: int, m: int, v: int) -> list[Order]:
        return read.orders

    def placement(p: int, v: int) -> list[list[int]]:
        return read.placement

    def rule(p: int, m: int, v: int) -> str | None:
        if (p, m, v) == (read.devices, read.microbatches, read.chunks):
            return None
        return f"it is made for p = {read.devices}, m = {read.microbatches}, v = {read.chunks}"

    return Schedule(
        name=Path(file).name,
        reference=file,
        trade_off="The user's own.",
        bubble="",
        memory="",
        order=order,
        placement=placement,
        rule=rule,
        splits_backward=read.splits_backward,
        pairs=True,  # those it has; none are added
        default_overlap_p2p=True,
        forward_only=all(a.kind.name == "F" for actions in read.orders for a in unpaired(actions)),
        directions=read.directions,
    )
