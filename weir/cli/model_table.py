"""The table of `weir models`: one line per version, for Weir and for other servers."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from textwrap import indent

from rich.console import Console
from rich.text import Text

from weir.bundle.versions import FILE_NAME
from weir.client.results import IndexEntry, ModelInfo

NOT_LOADED = "NOT LOADED"

_COLOURS = {"READY": "green", "LOADING": "yellow", "UNLOADING": "yellow", "UNAVAILABLE": "red"}
# Labels have no maximum width, so they come last.
_HEADS = ("version", "state", "provider", "since", "parity", "golden", "batch", "labels")
_INDENT = "  "
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class TableRow:
    """One version of a model, or a model without loaded versions; unknown fields are empty.

    `answers` marks the default version. `not_loaded` lists the model's versions on disk that are
    neither loaded nor loading.
    """

    name: str
    task: str = ""
    version: str = ""
    answers: bool | None = None
    labels: tuple[str, ...] = ()
    state: str = NOT_LOADED
    reason: str = ""
    provider: str = ""
    since: datetime | None = None
    parity: float | None = None
    golden: float | None = None
    is_batched: bool | None = None
    batching_reason: str = ""
    unserved_outputs: tuple[str, ...] = ()
    threads: int = 0
    instances: int = 0
    not_loaded: tuple[str, ...] = ()


def from_models(models: Iterable[ModelInfo]) -> list[TableRow]:
    """Rows from the model list of a Weir server."""
    rows = []
    for model in models:
        known = {version.version for version in model.versions}
        rest = tuple(version for version in model.on_disk if version not in known)
        if not model.versions:
            rows.append(TableRow(model.name, answers=False, not_loaded=rest))
        rows += [
            TableRow(
                name=model.name,
                task=model.task,
                answers=version.version == model.answering,
                not_loaded=rest,
                **{key: getattr(version, key) for key in version.__slots__},
            )
            for version in model.versions
        ]
    return rows


def from_index(entries: Iterable[IndexEntry]) -> list[TableRow]:
    """Rows from the repository index of any server of the protocol."""
    return [
        TableRow(entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        for entry in entries
    ]


def to_json(rows: Iterable[TableRow]) -> list[dict[str, object]]:
    """The rows for JSON, times in ISO 8601."""
    return [
        {**dataclasses.asdict(row), "since": row.since and row.since.isoformat()} for row in rows
    ]


def show(rows: Sequence[TableRow], target: str, console: Console) -> None:
    """Print a heading per model and a line per version, without empty columns."""
    now = datetime.now(UTC)
    cells = [_cells(row, now) for row in rows]
    heads = [head for head in _HEADS if any(line[head] for line in cells)]
    widths = {head: max(len(line[head]) for line in [*cells, {head: head}]) for head in heads}
    lines = [Text(f"models of {target}; * answers requests without a version", "italic")]
    lines += [_line({head: head for head in heads}, widths, "bold")]
    for _, group in groupby(rows, lambda row: row.name):
        lines += _model(list(group), widths, now)
    if any(row.threads for row in rows):
        lines.append(
            Text("provider: with threads of an operator x batches at the same time", "dim")
        )
    for line in lines:
        # A terminal wraps lines itself; a file keeps each reason on one line.
        console.print(line, soft_wrap=True)


def ago(since: datetime, now: datetime) -> str:
    """The age in the largest unit that fits."""
    seconds = max(0.0, (now - since).total_seconds())
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _model(versions: Sequence[TableRow], widths: Mapping[str, int], now: datetime) -> list[Text]:
    name, task, rest = versions[0].name, versions[0].task, versions[0].not_loaded
    lines = [Text.assemble((name, "bold"), (f"  {task}" if task else "", "dim"))]
    # An error in versions.toml concerns all versions; the server repeats it for each.
    shared = {row.reason for row in versions if row.reason.startswith(FILE_NAME)}
    lines += [Text(indent(reason, _INDENT), _COLOURS["UNAVAILABLE"]) for reason in sorted(shared)]
    for row in versions:
        colour = _COLOURS.get(row.state, "")
        lines.append(_line(_cells(row, now), widths, colour))
        if row.reason and row.reason not in shared:
            lines.append(Text(indent(row.reason, _INDENT * 2), colour))
        if row.is_batched is False:
            lines.append(Text(f"{_INDENT * 2}not batched: {row.batching_reason}", "dim"))
        if row.unserved_outputs:
            outputs = ", ".join(row.unserved_outputs)
            lines.append(Text(f"{_INDENT * 2}not served, as no tensor: {outputs}", "dim"))
    if rest:
        lines.append(Text(f"{_INDENT}on disk, not loaded: {', '.join(rest)}", "dim"))
    return lines


def _cells(row: TableRow, now: datetime) -> dict[str, str]:
    return {
        "version": f"{row.version} *" if row.answers else row.version,
        "state": row.state,
        "provider": f"{row.provider} {row.threads}x{row.instances}"
        if row.threads
        else row.provider,
        "since": ago(row.since, now) if row.since else "",
        "parity": _difference(row.parity),
        "golden": _difference(row.golden),
        "batch": "" if row.is_batched is None else "yes" if row.is_batched else "no",
        "labels": ", ".join(row.labels),
    }


def _line(cells: Mapping[str, str], widths: Mapping[str, int], style: str) -> Text:
    text = _INDENT.join(cells[head].ljust(width) for head, width in widths.items())
    return Text(f"{_INDENT}{text.rstrip()}", style)


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"
