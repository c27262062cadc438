"""``stepcast calibrate``: kernel coefficients from measurements, and how far they are from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.options import ReportFile, asked_by
from simulator.spec.errors import Problem, SpecError, nearest
from simulator.spec.units import UnitError, parse_quantity

if TYPE_CHECKING:
    from calibration.check import Check
    from calibration.measure.session import Backend, Outcome

SECTIONS = ("gemm", "grouped_gemm", "attention", "memory_bound")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Measure kernels, fit coefficients on measurements, and check them.",
)

Hardware = Annotated[
    str, typer.Option("--hardware", metavar="NAME", help="A device, a cluster, or a short alias.")
]
Profile = Annotated[
    str,
    typer.Option(metavar="NAME", help="A kernel profile (or its .yaml file) instead of the device's own."),
]


@app.command("fit")
def fit(
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="Measurement tables, or folders of them.")
    ],
    hardware: Hardware,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.yaml", help="The profile to write.")
    ],
    name: Annotated[str, typer.Option(help="The profile's name; by default the file's.")] = "",
    base: Profile = "",
    source: Annotated[str, typer.Option(help="Use only rows whose source column says this.")] = "",
) -> None:
    """Fit the classes of kernels that DATA covers, as an overlay over a shipped profile."""
    from calibration.fit.site_profile import fit_site_profile
    from calibration.fit.write import dump
    from calibration.predict import own_rows
    from calibration.readers import read_table
    from reports.files import refuse_unusable, replacing
    from simulator.cost.kernels import Kernels
    from simulator.cost.profile_file import load_kernel_profile
    from simulator.spec.load import load_device

    refuse_unusable((output,))
    with asked_by("--hardware"):
        device = load_device(hardware)
    with asked_by("--base"):
        profile = load_kernel_profile(base or device.kernels or device.name)
    kernels = Kernels(device, profile)
    tables = [own_rows(read_table(path), device) for path in _files(data)]
    collectives = [table.path for table in tables if table.kind == "collective"]
    fabric = _fit_fabric(collectives, hardware, output, source) if collectives else False
    tables = [table for table in tables if table.kind != "collective"]
    found = fit_site_profile(name or output.stem, kernels, tables, source=source)
    _print_refused(found.refused)
    if any(section in found.document for section in SECTIONS):
        with replacing(output) as stream:
            stream.write(dump(found.document))
        _print_fits(found.document)
    elif not fabric:
        raise SpecError(Problem(rule=f"the data fits no class of kernels of {device.name}, no collective"))


def _fit_fabric(data: list[str], hardware: str, output: Path, source: str) -> bool:
    """Writes what collectives say of the cluster beside the kernels' profile; whether they said enough."""
    from rich.console import Console

    from calibration.fit_network.profiles import dump
    from calibration.fit_network.rows import read_table as read_collectives
    from calibration.fit_network.site import fit_site_fabrics
    from reports.files import replacing
    from simulator.spec.load import load_cluster

    rows = [row for path in data for row in read_collectives(path) if source in ("", row.source)]
    with Console(stderr=True).status("fitting collectives: minutes for a thousand rows"):
        found = fit_site_fabrics(output.stem, load_cluster(hardware), rows)
    _print_refused(found.refused)
    if not found.document:
        return False
    path = output.with_name(f"{output.stem}.fabric.yaml")
    with replacing(path) as stream:
        stream.write(dump(found.document))
    for what, error in found.errors.items():
        typer.echo(f"collectives {what}: {_held_out(error.rows, error.median, error.p90)}")
    typer.echo(f"{path}: set it as the fabric of your cluster")
    return True


def _print_refused(reasons: Sequence[str]) -> None:
    for reason in reasons:
        typer.echo(f"not fitted: {reason}", err=True)


@app.command("check")
def check(
    data: Annotated[
        list[Path], typer.Option("--data", metavar="FILE.csv", help="A measurement table; repeatable.")
    ],
    hardware: Hardware,
    profile: Profile = "",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the figures as JSON; '-' prints them instead of a table."
        ),
    ] = None,
    report_file: ReportFile = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write predicted against measured, a plot per class.")
    ] = None,
) -> None:
    """Predicted against measured, by class of kernels."""
    from calibration.check import check as checked
    from reports.files import STDOUT, refuse_unusable, write_json
    from simulator.cost.profile_file import load_kernel_profile
    from simulator.spec.load import load_device

    refuse_unusable((json_file, report_file), (plots,))
    with asked_by("--hardware"):
        load_device(hardware)
    if profile:
        with asked_by("--profile"):
            load_kernel_profile(profile)
    result = checked(hardware, _files(data), profile=profile)
    if json_file is not None:
        write_json(result.to_dict(), json_file)
    if plots is not None:
        from reports.check_page import write_check_plots

        write_check_plots(plots, result)
    if report_file is not None:
        from reports.check_page import write_check_report

        write_check_report(report_file, result)
    if json_file != STDOUT:
        _print_check(result)


@app.command("import")
def import_data(
    data: Annotated[
        Path, typer.Argument(metavar="FILE", help="nccl-tests log, profiler trace (JSON) or table (CSV).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.csv", help="The table to write.")],
    gpu: Annotated[str, typer.Option(help="The device, where FILE does not tell it.")] = "",
    source: Annotated[str, typer.Option(help="Who measured; by default the file's name.")] = "",
    fabric: Annotated[
        str, typer.Option(help="The machine of collectives: '8xH100/node, 8x400G InfiniBand'.")
    ] = "",
) -> None:
    """Turn others' measurements into a table that fit and check read."""
    from calibration.importing import import_file

    written = import_file(data, output, gpu=gpu, source=source, fabric=fabric)
    typer.echo(f"{written.path}: {written.rows} rows of {written.kind}")


@app.command("measure")
def measure(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the tables; resumes there.")
    ],
    device: Annotated[str, typer.Option(help="cuda:0, another GPU, or cpu.")] = "cuda:0",
    gpu: Annotated[
        str, typer.Option(help="The device's name in the tables; by default as the driver says.")
    ] = "",
    budget: Annotated[
        str, typer.Option(help="Stop starting new cases after this time, as in 10min.")
    ] = "15 min",
    dtype: Annotated[
        list[str] | None, typer.Option(help="Precisions of GEMMs; repeatable. Default bf16.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Parts of the plan; repeatable. Default all.")
    ] = None,
    source: Annotated[str, typer.Option(help="Name of this machine in the tables.")] = "own",
    tiny: Annotated[bool, typer.Option("--tiny", help="Tiny shapes: a rehearsal.")] = False,
    simulate: Annotated[
        str, typer.Option(metavar="NAME", help="No GPU: times come from this device's shipped profile.")
    ] = "",
    fabric: Annotated[
        str, typer.Option(help="Under torchrun: the machine, as '8xH100/node, 8x400G InfiniBand'.")
    ] = "",
) -> None:
    """Time kernels on this machine's GPU with PyTorch (extra: gpu); under torchrun, collectives."""
    from calibration.measure.plan import PARTS, TINY, plan
    from calibration.measure.session import measure as measured
    from calibration.measure.torch_collectives import job_ranks

    if job_ranks() > 1:
        _measure_collectives(output, device, gpu, _seconds(budget), source, fabric, tiny=tiny)
        return
    unknown = sorted(set(part or ()) - set(PARTS))
    if unknown:
        rule, near = f"must be one of {', '.join(PARTS)}", nearest(unknown[0], PARTS, few=0)
        raise SpecError(Problem(key_path="--part", value=unknown[0], rule=rule, suggestion=near))
    limit = _seconds(budget)
    cases = plan(scale=TINY if tiny else None, dtypes=dtype or ["bf16"], parts=part or PARTS)
    backend = _backend(device, gpu, simulate)
    with _progress(len(cases)) as progress:
        outcome = measured(cases, backend, output, source=source, budget_s=limit, progress=progress)
    _print_outcome(outcome)


@app.command("steps")
def steps(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.csv", help="The table; rows on file are kept.")
    ],
    hardware: Hardware,
    device: Annotated[str, typer.Option(help="cuda:0, another GPU, or cpu.")] = "cuda:0",
    source: Annotated[str, typer.Option(help="Name of this machine in the table.")] = "own",
    tiny: Annotated[bool, typer.Option("--tiny", help="Tiny models: a rehearsal.")] = False,
) -> None:
    """Time whole training steps of small models on one GPU; `stepcast validate --runs FILE.csv` compares."""
    from calibration.measure.steps import measure_steps, slices
    from reports.files import refuse_unusable
    from simulator.spec.load import load_device

    refuse_unusable((output,))
    with asked_by("--hardware"):
        load_device(hardware)
    with _needs_torch(device):
        from calibration.measure.torch_steps import time_step
    pieces = list(slices(tiny=tiny))
    with _progress(len(pieces)) as progress:
        count = measure_steps(
            pieces, lambda piece: time_step(piece, device), output, hardware, source, progress=progress
        )
    typer.echo(f"{count} steps measured, {len(pieces) - count} on file before")


def _measure_collectives(
    output: Path, device: str, gpu: str, budget_s: float, source: str, fabric: str, *, tiny: bool
) -> None:
    """Rank 0 measures and writes; the others take part."""
    from calibration.measure.collectives import collective_plan
    from calibration.measure.plan import TINY
    from calibration.measure.session import measure as measured
    from calibration.measure.torch_collectives import CollectiveBackend

    with _needs_torch(device):
        backend = CollectiveBackend(device, gpu=gpu)
    if backend.rank:
        backend.follow()
        return
    scale = TINY if tiny else None
    cases = collective_plan(backend.ranks, backend.ranks_per_node, scale=scale, fabric=fabric)
    with _progress(len(cases)) as progress:
        outcome = measured(cases, backend, output, source=source, budget_s=budget_s, progress=progress)
    backend.finish()
    _print_outcome(outcome)


def _print_outcome(outcome: Outcome) -> None:
    typer.echo(f"{outcome.measured} cases measured, {outcome.resumed} on file before, {outcome.left} left")
    for reason, count in outcome.refused.items():
        typer.echo(f"{count} cases not run: {reason}")


def _seconds(text: str) -> float:
    try:
        seconds = parse_quantity(text, "seconds")
    except UnitError as error:
        problem = Problem(key_path="--budget", value=text, rule=error.rule, suggestion=error.hint)
        raise SpecError(problem) from error
    if seconds < 0:
        raise SpecError(Problem(key_path="--budget", value=text, rule="must not be negative"))
    return seconds


def _backend(device: str, gpu: str, simulate: str) -> Backend:
    if simulate:
        from calibration.measure.simulated import SimulatedBackend
        from simulator.cost.kernels import Kernels
        from simulator.cost.profile_file import load_kernel_profile
        from simulator.spec.load import load_device

        with asked_by("--simulate"):
            spec = load_device(simulate)
        return SimulatedBackend(Kernels(spec, load_kernel_profile(spec.kernels or spec.name)))
    from calibration.measure.torch_backend import TorchBackend

    with _needs_torch(device):
        return TorchBackend(device, gpu=gpu)


@contextmanager
def _needs_torch(device: str) -> Iterator[None]:
    """What goes wrong without PyTorch or the device, in words."""
    try:
        yield
    except ImportError as error:
        raise SpecError(Problem(rule="measuring needs PyTorch; install the extra: stepcast[gpu]")) from error
    except (RuntimeError, AssertionError) as error:
        raise SpecError(
            Problem(key_path="--device", value=device, rule=f"must be a device of this machine ({error})")
        ) from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda done, _: bar.update(task, completed=done)


def _files(paths: list[Path]) -> list[Path]:
    """Files as they are; of a folder, its tables."""
    found: list[Path] = []
    for path in paths:
        tables = sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")]) if path.is_dir() else [path]
        if not tables:
            raise SpecError(Problem(file=str(path), rule="has no measurement tables: no .csv and no .csv.gz"))
        found += tables
    return found


def _print_check(result: Check) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from reports.check_scores import FIGURES, NAMES, error_cells
    from reports.columns import table
    from reports.screen import make_console, show

    outcome = result.to_dict()
    overall = {"class": "all", "dtype": "", **outcome["overall"]}
    rows = [(row["class"], row["dtype"], *error_cells(row)) for row in [*outcome["classes"], overall]]
    console = make_console()
    title = f"{result.hardware}: predicted / measured − 1 with profile {result.profile}"
    errors = table((*NAMES, *FIGURES), rows, console.width - 2)
    skipped = [
        f"{each.n:,} rows of {each.file} not predicted: {each.reason} "
        f"(lines {', '.join(map(str, each.lines))} ...)"
        for each in result.skipped
    ]
    show(console, Text(title, style="bold"), Padding(errors, (0, 0, 0, 2)), *map(Text, ["", *skipped]))


def _print_fits(document: dict[str, Any]) -> None:
    for section in SECTIONS:
        for key, fitted in document.get(section, {}).items():
            for direction, fit in fitted.items() if section == "attention" else [("", fitted)]:
                errors = fit.get("held_out")
                if errors:
                    figures = _held_out(fit["points"], errors["median"], errors["p90"])
                    typer.echo(f"{section} {key} {direction}".rstrip() + f": {figures}")


def _held_out(rows: int, median: float, p90: float) -> str:
    return f"{rows} rows, held-out error {100 * median:.1f} % median, {100 * p90:.1f} % at 90 %"
