"""``stepcast show collective``: a table to lay beside a log of nccl-tests."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simulator.network.table import TableRow

STDOUT = Path("-")


def collective(
    name: Annotated[
        str,
        typer.Argument(
            help="all_reduce, all_gather, reduce_scatter, all_to_all, all_to_all_v, broadcast, reduce or "
            "send_recv."
        ),
    ],
    hardware: Annotated[str, typer.Option(help="A cluster: its name, a device's alias or a YAML file.")],
    ranks: Annotated[int, typer.Option(help="GPUs in the group.")] = 8,
    ranks_per_node: Annotated[
        int, typer.Option(help="Ranks of the group on each node (0: fill the nodes).")
    ] = 0,
    imbalance: Annotated[
        float,
        typer.Option(help="Of an all_to_all_v: the busiest rank's bytes over the mean."),
    ] = 1.0,
    smallest: Annotated[str, typer.Option("-b", help="First size, as nccl-tests' -b.")] = "1K",
    largest: Annotated[str, typer.Option("-e", help="Last size, as nccl-tests' -e.")] = "16G",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write JSON to this file, - for stdout.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw bus bandwidth over size: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Time and bandwidth of a collective by size, as nccl-tests would print them."""
    from simulator.cli.options import asked_by
    from simulator.network.fabric import fabric_for
    from simulator.network.table import collective_name, collective_table
    from simulator.spec.load import load_cluster

    kind = collective_name(name)
    with asked_by("--hardware"):
        cluster = load_cluster(hardware)
    rows = collective_table(
        kind,
        cluster,
        ranks,
        ranks_per_node=ranks_per_node,
        smallest=_bytes("-b", smallest),
        largest=_bytes("-e", largest),
        imbalance=imbalance,
    )
    title = f"{kind} over {ranks:,} ranks of {cluster.name}"
    if imbalance > 1:
        title += f", the busiest with {imbalance:g} times the mean"
    profile = fabric_for(cluster).name
    if plot is not None:
        from reports.figures.canvas import save
        from reports.figures.collective import collective as bandwidths

        save(bandwidths(rows, title), plot)
    if json_file is not None:
        facts = {"collective": kind, "hardware": cluster.name, "ranks": ranks, "fabric_profile": profile}
        facts |= {"imbalance": imbalance} if kind == "all_to_all_v" else {}
        _write_json({**facts, "rows": [asdict(row) for row in rows]}, json_file)
    else:
        _print_table(f"{title} (profile {profile})", rows)


def _print_table(title: str, rows: list[TableRow]) -> None:
    lines = [
        f"# {title}",
        "# out of place; bandwidths in GB/s (1e9); ± one standard error of the time",
        f"#{'size (B)':>13} {'time (us)':>12} {'algbw':>9} {'busbw':>9}  "
        f"{'algorithm':<10} {'protocol':<8} {'±':>5}",
    ]
    lines += [
        f"{row.size_bytes:>14.0f} {row.seconds * 1e6:>12.2f} {row.algorithm_bandwidth / 1e9:>9.2f} "
        f"{row.bus_bandwidth / 1e9:>9.2f}  {row.algorithm:<10} {row.protocol:<8} {row.relative_error:>5.0%}"
        for row in rows
    ]
    typer.echo("\n".join(lines))


def _bytes(option: str, text: str) -> float:
    """A size as nccl-tests takes it: a number with K, M or G for powers of 1,024."""
    scale = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30}.get(text[-1:].upper(), 1.0)
    digits = text[:-1] if scale > 1 else text
    try:
        size = float(digits) * scale
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ValueError(f"{option} {text!r}: must be a size above 0 such as 8, 64K, 32M or 16G")
    return size


def _write_json(facts: dict[str, object], file: Path) -> None:
    from reports.files import replacing

    text = json.dumps(facts, indent=2, ensure_ascii=False)
    if file == STDOUT:
        typer.echo(text)
        return
    with replacing(file) as stream:
        stream.write(text + "\n")
