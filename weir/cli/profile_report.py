"""`weir inspect --profile`: time by operator and by node, and what of it is avoidable."""

import importlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weir.bundle import reader
from weir.cli.error_hints import requires
from weir.client.errors import WeirError

if TYPE_CHECKING:
    from weir.profile.avoidable import Finding
    from weir.profile.graph_profile import GraphProfile

# Of the runs of each batch size, and of the proofs for a graph.
_PROFILE_S, _PROOFS_S = 2.0, 3.0
_MOST_NODES = 15
# Operators that take less of a run are one line together.
_LEAST_SHARE = 0.01
_BAR = 10
# Nodes that move or convert data, and compute nothing.
_MOVEMENT = frozenset(
    {
        *("Cast", "Concat", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Shape", "Slice"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
        *("ReorderInput", "ReorderOutput"),
    }
)


def report(console: Console, directory: Path, file: str | None, *, as_json: bool) -> None:
    """Profile the bundle in a directory, or a file there without a contract, and print it.

    Raises:
        BundleError: it cannot be read.
        WeirError: it cannot be profiled.
    """
    shown = directory if file is None else directory / file
    with requires("server"):
        from weir.profile import avoidable
        from weir.profile.graph_profile import ProfileError
    try:
        profiles = _of_bundle(directory) if file is None else _of_file(directory, file)
    except ProfileError as error:
        raise WeirError(f"{shown}: cannot be profiled: {error}") from error
    found = {name: avoidable.find(each, seconds=_PROOFS_S) for name, each in profiles.items()}
    if as_json:
        graphs = {name: _to_json(each, found[name]) for name, each in profiles.items()}
        typer.echo(json.dumps({"model": str(shown), "graphs": graphs}))
        return
    for name, each in profiles.items():
        title = f"{shown}" if name == "model" else f"{shown}: {name}"
        show(console, title, each, found[name])


def _of_bundle(directory: Path) -> "Mapping[str, GraphProfile]":
    from weir.profile.bundle_profile import profile_bundle

    return profile_bundle(reader.read(directory), seconds=_PROFILE_S)


def _of_file(directory: Path, file: str) -> "Mapping[str, GraphProfile]":
    """The profile of a plain model on rows as the server's batch axis proof makes them."""
    from weir.profile import graph_profile
    from weir.profile.bundle_profile import MOST_ROWS, repeated

    # By name: the command imports the server only for a plain model.
    with requires("server"):
        batch_axis, plain_model, triton, errors = (
            importlib.import_module(f"weir.server.{name}")
            for name in (
                "repository.batch_axis",
                "repository.plain_model",
                "repository.triton",
                "errors",
            )
        )
    graph = reader.read_without_contract(directory, file)
    path = directory / file
    try:
        config = triton.read_config(plain_model.config_directory(path), "")
        rows, most = batch_axis.generated_inputs(graph, config)
    except errors.ServerError as error:
        raise graph_profile.ProfileError(str(error)) from error
    if most is None:
        profiled = graph_profile.profile(graph, lambda _: rows[0], (1,), seconds=_PROFILE_S)
    else:
        sizes = sorted({1, min(most, MOST_ROWS)})
        profiled = graph_profile.profile(graph, repeated(rows), sizes, seconds=_PROFILE_S)
    return {"model": profiled}


def show(
    console: Console, title: str, profile: "GraphProfile", findings: "Sequence[Finding]"
) -> None:
    """Print the tables of a graph, and what is avoidable with its fix."""
    console.print(Text(f"{title}: microseconds of a run, one thread"), soft_wrap=True)
    facts = _table("", profile)
    per_row = [f"{run.run_us / run.rows:,.1f}" for run in profile.runs]
    moved = [_movement(profile, run.node_us) / run.run_us for run in profile.runs]
    avoidable = [
        sum(finding.avoidable_us[at] for finding in findings) / run.run_us
        for at, run in enumerate(profile.runs)
    ]
    for name, cells in (
        ("a run", [f"{run.run_us:,.1f}" for run in profile.runs]),
        ("a row", per_row),
        ("moves or converts data", [f"{share:.1%}" for share in moved]),
        ("avoidable", [f"{share:.1%}" for share in avoidable]),
    ):
        facts.add_row(name, *cells)
    for table in (facts, _by_operator(profile), _by_node(profile)):
        console.print(table, "")
    _show_avoidable(console, profile, findings)


def _to_json(profile: "GraphProfile", findings: "Sequence[Finding]") -> dict[str, object]:
    """The report as JSON: times in microseconds, in the order of `batches`."""
    return {
        "batches": [{"rows": run.rows, "run_us": round(run.run_us, 2)} for run in profile.runs],
        "nodes": [
            {
                "name": node.name,
                "operator": node.operator,
                "layer": node.layer,
                "us": [round(run.node_us[place], 2) for run in profile.runs],
            }
            for place, node in enumerate(profile.nodes)
        ],
        "avoidable": [
            {
                "kind": finding.kind.name,
                "fix": finding.kind.fix,
                "nodes": [profile.nodes[place].name for place in finding.nodes],
                "us": [round(us, 2) for us in finding.us],
                "avoidable_us": [round(us, 2) for us in finding.avoidable_us],
            }
            for finding in findings
        ],
    }


def _by_operator(profile: "GraphProfile") -> Table:
    table = _table("operator", profile, "share", "", before=("nodes",))
    places: dict[str, list[int]] = defaultdict(list)
    for place, node in enumerate(profile.nodes):
        places[node.operator].append(place)
    times = {
        operator: [sum(run.node_us[place] for place in found) for run in profile.runs]
        for operator, found in places.items()
    }
    shares = {each: us[-1] / profile.runs[-1].run_us for each, us in times.items()}
    small = [each for each in times if shares[each] < _LEAST_SHARE]
    # One small operator takes one line in either form.
    small = small if len(small) > 1 else []
    for operator in sorted(times.keys() - small, key=lambda each: times[each][-1], reverse=True):
        share = times[operator][-1] / profile.runs[-1].run_us
        bar = "█" * round(_BAR * share)
        count = str(len(places[operator]))
        table.add_row(*_cells(profile, [operator, count], times[operator]), Text(bar))
    if small:
        count = str(sum(len(places[each]) for each in small))
        rest = [sum(us) for us in zip(*(times[each] for each in small), strict=True)]
        table.add_row(*_cells(profile, [f"{len(small)} others", count], rest))
    outside = [max(0.0, run.run_us - sum(run.node_us)) for run in profile.runs]
    table.add_row(*_cells(profile, ["outside operators", ""], outside))
    return table


def _by_node(profile: "GraphProfile") -> Table:
    table = _table("operator", profile, "share", before=("node", "layer"))
    last = profile.runs[-1]
    order = sorted(range(len(profile.nodes)), key=last.node_us.__getitem__, reverse=True)
    most = _MOST_NODES if len(order) > _MOST_NODES + 1 else len(order)
    for place in order[:most]:
        node = profile.nodes[place]
        names = [node.operator, _short(node.name), _short(node.layer)]
        times = [run.node_us[place] for run in profile.runs]
        table.add_row(*_cells(profile, names, times))
    if rest := order[most:]:
        times = [sum(run.node_us[place] for place in rest) for run in profile.runs]
        table.add_row(*_cells(profile, [f"{len(rest)} others", "", ""], times))
    return table


def _show_avoidable(
    console: Console, profile: "GraphProfile", findings: "Sequence[Finding]"
) -> None:
    if not findings:
        console.print("avoidable: nothing was found\n", highlight=False)
        return
    table = _table("avoidable", profile, "share", before=("nodes",))
    for finding in findings:
        names = [finding.kind.name, _short(_node_names(profile, finding), 30)]
        table.add_row(*_cells(profile, names, finding.avoidable_us))
    console.print(table, "")
    for finding in findings:
        console.print(Text(f"{finding.kind.name}: {finding.kind.fix}"))
    console.print()


def _node_names(profile: "GraphProfile", finding: "Finding") -> str:
    return ", ".join(profile.nodes[place].name for place in finding.nodes)


def _table(first: str, profile: "GraphProfile", *behind: str, before: Sequence[str] = ()) -> Table:
    """A table with a column of figures for each batch size."""
    table = Table(first, *before, box=None, pad_edge=False)
    for run in profile.runs:
        table.add_column(f"{run.rows} row{'' if run.rows == 1 else 's'}", justify="right")
    for name in behind:
        table.add_column(name, justify="right" if name else "left")
    return table


def _cells(profile: "GraphProfile", names: Sequence[str], times: Sequence[float]) -> list[Text]:
    """A line of a table: names, times, and the share of the largest batch."""
    share = f"{times[-1] / profile.runs[-1].run_us:.1%}"
    return [Text(cell) for cell in (*names, *(f"{us:,.1f}" for us in times), share)]


def _movement(profile: "GraphProfile", node_us: Sequence[float]) -> float:
    moved = zip(profile.nodes, node_us, strict=True)
    return sum(us for node, us in moved if node.operator in _MOVEMENT)


def _short(name: str, most: int = 18) -> str:
    """The end of a long name, which tells it from others."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
