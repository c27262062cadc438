"""The YAML that ships with stepcast, found by name: models, clusters, devices, links, runs and sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, TypeAlias

from simulator.spec.errors import Problem, SpecError, nearest
from simulator.spec.yaml_loader import Node, read_yaml

Kind: TypeAlias = Literal["runs", "sweeps", "models", "clusters", "devices", "links", "kernels", "fabrics"]

FOLDERS: dict[Kind, tuple[str, str]] = {
    "runs": ("workloads", "runs"),
    "sweeps": ("workloads", "sweeps"),
    "models": ("workloads", "models"),
    "clusters": ("hardware_profiles", "clusters"),
    "devices": ("hardware_profiles", "devices"),
    "links": ("hardware_profiles", "links"),
    "kernels": ("hardware_profiles", "kernels"),
    "fabrics": ("hardware_profiles", "fabrics/scale_out"),
}
ARTICLES: dict[Kind, str] = {
    "runs": "a run",
    "sweeps": "a sweep",
    "models": "a model",
    "clusters": "a cluster",
    "devices": "a device",
    "links": "a link",
}
"""What a file of a kind describes, of the kinds that users name."""
LISTED_BY: dict[Kind, str] = {
    "runs": "runs",
    "sweeps": "runs",
    "models": "models",
    "clusters": "hardware",
    "devices": "hardware",
    "links": "hardware",
}
"""What ``stepcast show`` lists the names of a kind under."""


def use(kind: Kind, name: str) -> str:
    """The command or the line of a file that takes something of a kind."""
    commands = {"runs": "run", "sweeps": "sweep"}
    if kind in commands:
        return f"stepcast {commands[kind]} {name}"
    where = {"models": "model", "clusters": "cluster", "devices": "cluster.device"}
    line = f", or '{where[kind]}: {name}' in a run file" if kind in where else ""
    return f"stepcast show {name}{line}"


def names(kind: Kind) -> list[str]:
    """Every name of a kind that ships."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _entries(kind))


def description(kind: Kind, name: str) -> str:
    """The line that something that ships says of itself."""
    return _text(read_yaml(_folder(kind).joinpath(f"{name}.yaml")), "description")


def ships(kind: Kind, name: str) -> bool:
    """Whether something of that very name ships."""
    return "/" not in name and _folder(kind).joinpath(f"{name}.yaml").is_file()


def aliases() -> dict[str, str]:
    """The short names of devices, such as ``h100``, and the devices they stand for."""
    found = ((alias, name) for name, device in _read_all("devices") for alias in _list(device, "aliases"))
    return {str(alias): name for alias, name in found}


def devices(architecture: str) -> list[str]:
    """The devices of an architecture."""
    return [name for name, device in _read_all("devices") if _text(device, "architecture") == architecture]


def read(kind: Kind, name: str, *, origin: Node) -> Node:
    """The document that a reference names; ``origin`` is the node that holds the name.

    ``name`` is a path relative to the file it is written in, a name that ships, or an alias of a device.
    Where a cluster is asked for, a device means its default cluster; where a device is, a cluster means its.

    Raises SpecError without a key path when nothing is found.
    """
    if is_path(name):
        return read_yaml(Path(origin.file).parent / name)
    wanted = name.casefold()
    shipped = _entry(kind, wanted)
    if shipped is None and kind == "devices":
        shipped = _entry(kind, aliases().get(wanted, ""))
    if shipped is not None:
        return read_yaml(shipped)
    if kind == "clusters":
        return _cluster_of_device(name, wanted)
    if kind == "devices" and (cluster := _entry("clusters", wanted)) is not None:
        device = read_yaml(cluster).child("device")
        if device is not None:
            return read(kind, device.value, origin=device) if isinstance(device.value, str) else device
    raise _unknown(kind, name)


def is_path(name: str) -> bool:
    """Whether a reference is a path rather than a name."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def _cluster_of_device(name: str, wanted: str) -> Node:
    """The cluster that stands for a device: the one that says so, or the only one that holds it."""
    device = wanted if _entry("devices", wanted) is not None else aliases().get(wanted, "")
    if not device:
        raise _unknown("clusters", name)
    holders = [(name, node) for name, node in _read_all("clusters") if _text(node, "device") == device]
    chosen = [node for _, node in holders if _text(node, "default_for") == device]
    if len(chosen) != 1 and len(holders) == 1:
        chosen = [holders[0][1]]
    if len(chosen) == 1:
        return chosen[0]
    rule = f"the device {device} has no default cluster; a cluster is needed"
    raise SpecError(Problem(value=name, rule=rule, suggestion=nearest("", [name for name, _ in holders])))


def other_kind(name: str, kind: Kind) -> Kind | None:
    """What else than ``kind`` ships under a name, or has it as an alias."""
    wanted = name.casefold()
    wanted = aliases().get(wanted, wanted)
    return next((other for other in ARTICLES if other != kind and ships(other, wanted)), None)


def _unknown(kind: Kind, name: str) -> SpecError:
    other = other_kind(name, kind)
    if other is not None and kind in ("runs", "sweeps"):
        rule = f"is {ARTICLES[other]}, not {ARTICLES[kind]}"
        return SpecError(Problem(value=name, rule=rule, suggestion=use(other, name)))
    known = names(kind)
    if kind in {"clusters", "devices"}:
        known += [*aliases(), *(names("devices") if kind == "clusters" else names("clusters"))]
    rule = f"must name one of the {len(names(kind))} {kind} of {'/'.join(FOLDERS[kind])}, or a .yaml file"
    found = nearest(name, known)
    return SpecError(Problem(value=name, rule=rule, suggestion=found or _listing(kind)))


def _listing(kind: Kind) -> str:
    return f"stepcast show {LISTED_BY[kind]}, which lists them" if kind in LISTED_BY else ""


def _folder(kind: Kind) -> Traversable:
    package, path = FOLDERS[kind]
    folder = resources.files(package)
    for part in path.split("/"):
        folder = folder.joinpath(part)
    return folder


def _entries(kind: Kind) -> Iterator[Traversable]:
    folder = _folder(kind)
    return (
        (entry for entry in folder.iterdir() if entry.name.endswith(".yaml")) if folder.is_dir() else iter(())
    )


def _entry(kind: Kind, name: str) -> Traversable | None:
    return next((entry for entry in _entries(kind) if entry.name.casefold() == f"{name}.yaml"), None)


def _read_all(kind: Kind) -> Iterator[tuple[str, Node]]:
    for entry in sorted(_entries(kind), key=lambda entry: entry.name):
        yield entry.name.removesuffix(".yaml"), read_yaml(entry)


def _text(node: Node, key: str) -> str:
    child = node.child(key)
    return child.value if child is not None and isinstance(child.value, str) else ""


def _list(node: Node, key: str) -> Iterable[object]:
    child = node.child(key)
    return [item.value for item in child.value] if child is not None and isinstance(child.value, list) else ()
