"""``stepcast import``: model and run files from what users already have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import JsonFile, Overrides
from simulator.spec.errors import Problem, SpecError

if TYPE_CHECKING:
    from simulator.interop.imported import Imported

app = typer.Typer(add_completion=False, no_args_is_help=True)

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE.yaml", help="Write the file here instead of printing it."),
]
Ignored = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="KEY", help="A key or flag that means nothing here (repeatable)."),
]
Name = Annotated[str, typer.Option(help="The name of the model or run; by default from the file.")]


@app.callback()
def import_() -> None:
    """Turn a Hugging Face config.json or a Megatron-LM script into a model or run file."""


@app.command()
def hf(
    config: Annotated[Path, typer.Argument(metavar="config.json", help="Of a model on Hugging Face.")],
    output: Output = None,
    name: Name = "",
    ignored: Ignored = None,
    json_file: JsonFile = None,
) -> None:
    """Print the model file of a Hugging Face config.json; what became of each key goes to stderr."""
    from simulator.graph.parameters import count_parameters
    from simulator.interop.huggingface.config import import_config

    imported, model = import_config(config, name=name, ignored=ignored or ())
    count = count_parameters(model)
    counted = (
        f"{count.without_mtp / 1e9:.2f} B parameters, {count.active / 1e9:.2f} B of them active per token"
    )
    _write(imported, f"{model.name}: {counted}", output, json_file)


@app.command()
def megatron(
    script: Annotated[
        Path, typer.Argument(metavar="script.sh", help="Launches Megatron-LM, or holds its flags.")
    ],
    output: Output = None,
    cluster: Annotated[
        str,
        typer.Option(metavar="NAME", help="What it runs on: a cluster or device; a stand-in if left out."),
    ] = "",
    gpus: Annotated[int, typer.Option(min=0, help="How many, where the script does not say.")] = 0,
    name: Name = "",
    variables: Annotated[
        list[str] | None,
        typer.Option("--var", metavar="NAME=VALUE", help="A variable of the environment (repeatable)."),
    ] = None,
    overrides: Overrides = None,
    ignored: Ignored = None,
    json_file: JsonFile = None,
) -> None:
    """Print the run file of a script for Megatron-LM; what became of each flag goes to stderr."""
    from simulator.interop.megatron.script import import_script

    imported, run = import_script(
        script,
        cluster=cluster,
        gpus=gpus,
        name=name,
        variables=dict(map(_variable, variables or ())),
        ignored=ignored or (),
        overrides=overrides or (),
    )
    p = run.parallelism
    layout = f"TP {p.tp}, PP {p.pp}, VP {p.vp}, CP {p.cp}, EP {p.ep}, DP {run.dp}"
    _write(imported, f"{run.name}: {run.gpus:,} GPUs, {layout}", output, json_file)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise SpecError(Problem(key_path="--var", value=text, rule="must have the form NAME=VALUE"))
    return name, value


def _write(imported: Imported, about: str, output: Path | None, json_file: Path | None) -> None:
    """The file, then the account of the import, which a reader sees last."""
    from reports.files import STDOUT, replacing, write_json

    text = imported.yaml_text()
    if output is not None:
        with replacing(output) as stream:
            stream.write(text)
    elif json_file != STDOUT:
        typer.echo(text, nl=False)
    if json_file is not None:
        write_json(imported.as_json(), json_file)
    typer.echo("\n".join((about, *imported.account())), err=True)
