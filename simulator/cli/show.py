"""``stepcast show``: what ships, and all that is known of one device, cluster, link or model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.quantities import digits, gibibytes, scaled, seconds
from reports.screen import make_console, show
from simulator.cli.lazy import LazyGroup
from simulator.spec import catalogue
from simulator.spec.cluster import ClusterSpec, DeviceSpec, LinkSpec
from simulator.spec.errors import Problem, SpecError, nearest
from simulator.spec.load import load_cluster, load_device, load_link, load_model
from simulator.spec.model import ModelSpec

WIDTH = 160  # of a pipe: one row stays one line

QUANTITIES: dict[str, Callable[[float], str]] = {
    "peak_flops": lambda value: f"{digits(value / 1e12, 4)} TFLOP/s",
    "peak_flops_sparse": lambda value: f"{digits(value / 1e12, 4)} TFLOP/s",
    "bandwidth": lambda value: f"{digits(value / 1e9, 4)} GB/s",
    "_bytes": lambda value: f"{gibibytes(value)} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB",
    "_s": seconds,
    "_hz": lambda value: f"{digits(value / 1e9)} GHz",
    "_w": lambda value: f"{value:.0f} W",
    "_parameters": scaled,
}
"""The ending of a field's name → its value in the unit people use."""


class Shown(LazyGroup):
    """A word that is no command is the name of a profile: ``stepcast show h100``."""

    table: ClassVar[dict[str, str]] = {
        "schedules": "simulator.cli.show_schedule:schedules",
        "schedule": "simulator.cli.show_schedule:schedule",
    }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and its arguments."""
        if args and self.get_command(ctx, args[0]) is None:
            return "PROFILE", self.get_command(ctx, "profile"), args
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Shown,
    no_args_is_help=True,
    add_completion=False,
    help="Show what ships: hardware, models, schedules; or one of them by name (stepcast show h100).",
)


@app.command()
def hardware() -> None:
    """List the devices, clusters and links that ship."""
    short: dict[str, str] = {}
    for alias, device in sorted(catalogue.aliases().items(), key=lambda pair: -len(pair[0])):
        short[device] = alias
    _print_table(
        "Devices (dense peaks in TFLOP/s)",
        ("device", "or", "bf16", "fp8", "memory GiB", "TB/s", "W"),
        [_device_row(load_device(name), short.get(name, "")) for name in catalogue.names("devices")],
    )
    _print_table(
        "Clusters",
        ("cluster", "device", "GPUs/node", "in the node", "between nodes"),
        [_cluster_row(load_cluster(name)) for name in catalogue.names("clusters")],
    )
    _print_table(
        "Links",
        ("link", "kind", "one direction", "latency"),
        [_link_row(load_link(name)) for name in catalogue.names("links")],
    )


@app.command()
def models() -> None:
    """List the models that ship."""
    _print_table(
        "Models (size: parameters as published)",
        ("model", "size", "layers", "hidden", "heads", "KV", "FFN", "experts", "vocab"),
        [_model_row(load_model(name)) for name in catalogue.names("models")],
    )


@app.command(hidden=True)
def profile(name: str) -> None:
    """Show everything known of one device, cluster, link or model, with its sources."""
    spec = _find(name)
    table, sources = _grid(), _grid()
    numbers: dict[str, int] = {}
    for key, value, source in _facts(spec):
        note = f"[{numbers.setdefault(source, len(numbers) + 1)}]" if source else ""
        table.add_row(Text(key, style="dim"), Text(value), Text(note, style="dim"))
    for source, number in numbers.items():
        sources.add_row(Text(f"[{number}]", style="dim"), Text(source))
    title = Text(getattr(spec, "title", "") or spec.name, style="bold")
    show(make_console(WIDTH), title, table, "", sources)


def _find(name: str) -> DeviceSpec | ClusterSpec | LinkSpec | ModelSpec:
    """The spec of that name, whichever kind it is of. Raises SpecError naming near ones."""
    wanted = name.casefold()
    if wanted in catalogue.names("models"):
        return load_model(wanted)
    if wanted in catalogue.names("clusters"):
        return load_cluster(wanted)
    if wanted in catalogue.names("links"):
        return load_link(wanted)
    if wanted in catalogue.names("devices") or wanted in catalogue.aliases():
        return load_device(wanted)
    known = ["hardware", "models", *Shown.table, *catalogue.aliases()]
    known += [name for kind in catalogue.FOLDERS if kind != "runs" for name in catalogue.names(kind)]
    rule = "must be a command of 'stepcast show' or the name of a device, cluster, link or model"
    raise SpecError(Problem(key_path="show", value=name, rule=rule, suggestion=nearest(name, known)))


def _device_row(device: DeviceSpec, alias: str) -> Iterable[str]:
    peaks = (device.peak_flops.get(precision, 0.0) / 1e12 for precision in ("bf16", "fp8"))
    rates = (device.memory_bandwidth / 1e12, device.tdp_w)
    return device.name, alias, *map(_given, peaks), gibibytes(device.memory_bytes), *map(_given, rates)


def _given(value: float) -> str:
    return digits(value) if value else "-"


def _cluster_row(cluster: ClusterSpec) -> Iterable[str]:
    inside, outside = cluster.scale_up, cluster.scale_out
    return (
        cluster.name,
        cluster.device.name,
        str(cluster.gpus_per_node),
        f"{inside.domain_size} × {inside.link.name}",
        f"{outside.nics_per_node} × {outside.link.name}",
    )


def _link_row(link: LinkSpec) -> Iterable[str]:
    return link.name, link.kind, f"{digits(link.bandwidth / 1e9)} GB/s", seconds(link.latency_s)


def _model_row(model: ModelSpec) -> Iterable[str]:
    return (
        model.name,
        scaled(model.published_parameters) if model.published_parameters else "-",
        str(model.num_hidden_layers),
        f"{model.hidden_size:,}",
        str(model.num_attention_heads),
        str(model.num_key_value_heads),
        f"{model.moe_intermediate_size or model.intermediate_size:,}",
        f"{model.num_experts_per_tok} of {model.num_experts}" if model.is_moe else "-",
        f"{model.vocab_size:,}",
    )


def _facts(spec: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, value in a readable unit, source or note; nested specs are flattened."""
    sources: Mapping[str, str] = getattr(spec, "sources", {})
    of_all: str = getattr(spec, "source", "")
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name in ("source", "sources") or not (value or value is False):
            continue  # zero and empty stand for "not given"
        key, source = prefix + field.name, sources.get(field.name, "" if field.name == "name" else of_all)
        if field.name == "notes":
            yield key, "", str(value)
        elif is_dataclass(value):
            yield from _facts(value, f"{key}.")
        elif isinstance(value, Mapping):
            for name, item in value.items():
                yield f"{key}.{name}", _quantity(field.name, item), source
        elif isinstance(value, tuple) and is_dataclass(value[0]):
            for index, item in enumerate(value):
                yield from _facts(item, f"{key}.{index}.")
        else:
            yield key, _quantity(field.name, value), source


def _quantity(name: str, value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if not isinstance(value, int | float):
        return str(value)
    for ending, shown in QUANTITIES.items():
        if name.endswith(ending):
            return shown(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _print_table(title: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Names left, which may fold in a narrow terminal; numbers right, which may not."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, head in enumerate(heads):
        table.add_column(head, no_wrap=index > 0, overflow="fold", justify="left" if index < 2 else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    show(make_console(WIDTH), Text(title, style="bold"), Padding(table, (0, 0, 0, 2)), "")


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))
