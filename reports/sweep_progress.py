"""The progress of a sweep on standard error: how far, how fast, how long yet, and the best so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reports.quantities import seconds

if TYPE_CHECKING:
    from simulator.sweep.search import Progress as SearchProgress


@contextmanager
def shown_progress(progress: SearchProgress) -> Iterator[SearchProgress]:
    """Shows ``progress`` while the block runs, where standard error is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("layouts", total=None, rate="", best="")

        def changed(now: SearchProgress) -> None:
            speed = bars.tasks[0].speed
            best = (
                "" if now.best is None else f"best {seconds(now.best.step_time_s, 4)} (id {now.best.number})"
            )
            bars.update(
                task,
                total=now.total,
                completed=now.done,
                rate=f"{speed:,.0f}/s" if speed else "",
                best=best,
            )

        progress.changed = changed
        yield progress
