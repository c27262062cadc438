"""Every pipeline schedule by name. A new one is one file, one line here, and its name in ``spec.run``."""

from __future__ import annotations

from simulator.schedule import (
    dualpipe,
    dualpipev,
    forward_only,
    gpipe,
    interleaved_1f1b,
    interleaved_zb,
    looped_bfs,
    one_f_one_b,
    pipedream,
    pipedream_2bw,
    v_min,
    zb_h1,
    zb_h2,
    zb_v,
)
from simulator.schedule.definition import Schedule

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        gpipe.SCHEDULE,
        one_f_one_b.SCHEDULE,
        looped_bfs.SCHEDULE,
        interleaved_1f1b.SCHEDULE,
        interleaved_zb.SCHEDULE,
        zb_h1.SCHEDULE,
        zb_h2.SCHEDULE,
        zb_v.SCHEDULE,
        v_min.SCHEDULE,
        dualpipe.SCHEDULE,
        dualpipev.SCHEDULE,
        pipedream.SCHEDULE,
        pipedream_2bw.SCHEDULE,
        forward_only.SCHEDULE,
    )
}
