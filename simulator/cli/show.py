"""``stepcast show``: what ships with the simulator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import typer
from rich.padding import Padding
from rich.text import Text

from reports.columns import table
from reports.quantities import digits, gibibytes, scaled, seconds
from reports.screen import make_console, show
from simulator.cli.lazy import LazyGroup
from simulator.spec import catalogue
from simulator.spec.catalogue import Kind
from simulator.spec.cluster import ClusterSpec, DeviceSpec, LinkSpec
from simulator.spec.load import load_cluster, load_device, load_link, load_model
from simulator.spec.model import ModelSpec

WIDTH = 160  # of a pipe: one row stays one line


class Shown(LazyGroup):
    """A word that is no command is the name of a profile: ``stepcast show h100``."""

    table: ClassVar[dict[str, str]] = {
        "schedules": "simulator.cli.show_schedule:schedules",
        "schedule": "simulator.cli.show_schedule:schedule",
        "collective": "simulator.cli.show_collective:collective",
        "keys": "simulator.cli.show_keys:keys",
        "profile": "simulator.cli.show_profile:profile",
    }

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands to name in the help: all but the one that other words stand for."""
        return [name for name in super().list_commands(ctx) if name != "profile"]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and its arguments."""
        if args and self.get_command(ctx, args[0]) is None:
            return "PROFILE", self.get_command(ctx, "profile"), args
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Shown,
    no_args_is_help=True,
    add_completion=False,
    help="Show what ships: hardware, models, runs, schedules; or one by name or file (stepcast show h100).",
)


@app.command()
def hardware() -> None:
    """List the devices, clusters and links that ship."""
    short: dict[str, str] = {}
    for alias, device in sorted(catalogue.aliases().items(), key=lambda pair: -len(pair[0])):
        short[device] = alias
    print_table(
        "Devices (dense peaks in TFLOP/s)",
        ("device", "or", "bf16", "fp8", "memory GiB", "TB/s", "W"),
        [_device_row(load_device(name), short.get(name, "")) for name in catalogue.names("devices")],
    )
    print_table(
        "Clusters",
        ("cluster", "device", "GPUs per node", "in the node", "between nodes"),
        [_cluster_row(load_cluster(name)) for name in catalogue.names("clusters")],
    )
    print_table(
        "Links",
        ("link", "kind", "one direction", "latency"),
        [_link_row(load_link(name)) for name in catalogue.names("links")],
    )


@app.command()
def models() -> None:
    """List the models that ship."""
    print_table(
        "Models (size: parameters as published)",
        ("model", "size", "layers", "hidden", "heads", "KV", "FFN", "experts", "vocab"),
        [_model_row(load_model(name)) for name in catalogue.names("models")],
    )


@app.command()
def runs() -> None:
    """List the runs and sweeps that ship."""
    titles: dict[Kind, str] = {"runs": "Runs (stepcast run NAME)", "sweeps": "Sweeps (stepcast sweep NAME)"}
    for kind, title in titles.items():
        rows = [(name, catalogue.description(kind, name)) for name in catalogue.names(kind)]
        print_table(title, ("name", ""), rows)


def _device_row(device: DeviceSpec, alias: str) -> tuple[str, ...]:
    peaks = (device.peak_flops.get(precision, 0.0) / 1e12 for precision in ("bf16", "fp8"))
    rates = (device.memory_bandwidth / 1e12, device.tdp_w)
    return device.name, alias, *map(_given, peaks), gibibytes(device.memory_bytes), *map(_given, rates)


def _given(value: float) -> str:
    return digits(value) if value else "-"


def _cluster_row(cluster: ClusterSpec) -> tuple[str, ...]:
    inside, outside = cluster.scale_up, cluster.scale_out
    return (
        cluster.name,
        cluster.device.name,
        str(cluster.gpus_per_node),
        f"{inside.domain_size} × {inside.link.name}",
        f"{outside.nics_per_node} × {outside.link.name}",
    )


def _link_row(link: LinkSpec) -> tuple[str, ...]:
    return link.name, link.kind, f"{digits(link.bandwidth / 1e9)} GB/s", seconds(link.latency_s)


def _model_row(model: ModelSpec) -> tuple[str, ...]:
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


def print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A title, and under it names on the left and numbers on the right."""
    console = make_console(WIDTH)
    found = table(heads, rows, console.width - 2)
    show(console, Text(title, style="bold"), Padding(found, (0, 0, 0, 2)), "")
