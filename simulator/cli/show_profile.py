"""``stepcast show PROFILE``: all that is known of one device, cluster, link or model, with its sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from reports.quantities import digits, gibibytes, percent, scaled, seconds
from reports.screen import make_console, show
from simulator.cli.show import WIDTH, Shown, print_table
from simulator.spec import catalogue
from simulator.spec.catalogue import Kind
from simulator.spec.cluster import ClusterSpec, DeviceSpec, LinkSpec
from simulator.spec.errors import Problem, SpecError, nearest
from simulator.spec.kinds import kind_of
from simulator.spec.load import load_cluster, load_device, load_link, load_model
from simulator.spec.model import ModelSpec
from simulator.spec.run import SCHEDULES
from simulator.spec.yaml_loader import read_yaml

if TYPE_CHECKING:
    from simulator.cost.profile import Fitted, KernelProfile

LOADERS: dict[Kind, Callable[[str], DeviceSpec | ClusterSpec | LinkSpec | ModelSpec]] = {
    "models": load_model,
    "clusters": load_cluster,
    "links": load_link,
    "devices": load_device,
}
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


def profile(
    name: Annotated[
        str, typer.Argument(help="A device, cluster, link or model: its name or its .yaml file.")
    ],
) -> None:
    """Show everything known of one device, cluster, link or model, with its sources."""
    spec = _find(name)
    if isinstance(spec, ModelSpec) and spec.layers:
        _print_layers(spec)
        return
    table, sources = _grid(), _grid()
    numbers: dict[str, int] = {}
    for key, value, source in _facts(spec):
        note = f"[{numbers.setdefault(source, len(numbers) + 1)}]" if source else ""
        table.add_row(Text(key, style="dim"), Text(value), Text(note, style="dim"))
    for source, number in numbers.items():
        sources.add_row(Text(f"[{number}]", style="dim"), Text(source))
    title = Text(getattr(spec, "title", "") or spec.name, style="bold")
    show(make_console(WIDTH), title, table, "", sources, "")
    if isinstance(spec, DeviceSpec):
        _print_kernels(spec)


def _find(name: str) -> DeviceSpec | ClusterSpec | LinkSpec | ModelSpec:
    """The spec of that name or file, whichever kind it is of. Raises SpecError naming near ones."""
    wanted = name.casefold()
    if catalogue.is_path(name):
        kind = kind_of(read_yaml(Path(name)))
        wanted = name
    elif wanted in catalogue.aliases():
        kind = "devices"
    else:
        kind = next((kind for kind in (*LOADERS, "runs", "sweeps") if catalogue.ships(kind, wanted)), None)
    if kind in LOADERS:
        return LOADERS[kind](wanted)
    if kind is not None:
        rule = f"is {catalogue.ARTICLES[kind]}, which is not shown"
        raise SpecError(Problem(key_path="show", value=name, rule=rule, suggestion=catalogue.use(kind, name)))
    if wanted in SCHEDULES:
        remedy = f"stepcast show schedule {wanted}"
        raise SpecError(Problem(key_path="show", value=name, rule="is a schedule", suggestion=remedy))
    known = ["hardware", "models", *Shown.table, *catalogue.aliases()]
    known += [name for kind in LOADERS for name in catalogue.names(kind)]
    rule = (
        "must be a command of 'stepcast show', or a device, cluster, link or model by its name or .yaml file"
    )
    near = nearest(name, known) or "stepcast show hardware and stepcast show models list the names"
    raise SpecError(Problem(key_path="show", value=name, rule=rule, suggestion=near))


def _print_layers(model: ModelSpec) -> None:
    """An operator graph, layer by layer."""
    from simulator.graph.operator_graph import (
        graph_forward_flops,
        graph_layers,
        graph_parameters,
        layer_parameters,
    )

    rows = [
        (
            f"{placed.layer.name}",
            ", ".join(operator.op for operator in placed.layer.operators[:4])
            + (", …" if len(placed.layer.operators) > 4 else ""),
            str(placed.entering),
            scaled(layer_parameters(placed)) if layer_parameters(placed) else "-",
        )
        for placed in graph_layers(model)
    ]
    size, work = scaled(graph_parameters(model)), scaled(graph_forward_flops(model))
    title = f"{model.name}: {size} parameters, {work} FLOPs forward per sample"
    print_table(title, ("layer", "operators", "what enters", "parameters"), rows)
    show(make_console(WIDTH), Text(model.source, style="dim"), Text(model.notes, style="dim"), "")


def _print_kernels(device: DeviceSpec) -> None:
    """How well the kernels of a device are known."""
    from simulator.cost.profile_file import load_kernel_profile

    if not device.kernels and not catalogue.ships("kernels", device.name):
        words = "No kernel profile: a run needs 'kernels:', the name of a similar device's or a .yaml file"
        show(make_console(WIDTH), Text(words, style="bold"), "")
        return
    kernels = load_kernel_profile(device.kernels or device.name)
    heads = ("kernels", "", "from", "points", "held-out error", "random error", "machine error")
    print_table(
        f"Kernel times (profile {kernels.name}; relative standard errors)",
        heads,
        [_fit_row(*fit) for fit in _fits(kernels)],
    )


def _fits(kernels: KernelProfile) -> Iterator[tuple[str, str, Fitted[Any]]]:
    """Class, variant and fit."""
    for name in ("gemm", "grouped_gemm", "memory_bound", "copy"):
        for variant, fitted in getattr(kernels, name).items():
            yield name.replace("_", " "), variant, fitted
    for variant, attention in kernels.attention.items():
        yield "attention", f"{variant} forward", attention.forward
        yield "attention", f"{variant} backward", attention.backward


def _fit_row(name: str, variant: str, fitted: Fitted[Any]) -> tuple[str, ...]:
    median = percent(fitted.held_out.median) if fitted.held_out else "-"
    points = f"{fitted.points:,}" if fitted.points else "-"
    return name, variant, fitted.basis, points, median, percent(fitted.random, 0), percent(fitted.site, 0)


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


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))
