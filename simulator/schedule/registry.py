"""Every pipeline schedule by name. A new one is one file and one line here."""

from __future__ import annotations

from simulator.schedule import gpipe, interleaved_1f1b, looped_bfs, one_f_one_b
from simulator.schedule.definition import Schedule

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES: dict[str, Schedule] = {
    module.SCHEDULE.name: module.SCHEDULE
    for module in (
        gpipe,
        one_f_one_b,
        looped_bfs,
        interleaved_1f1b,
    )
}
