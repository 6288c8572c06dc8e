"""What `weir models` shows: a line for each version, whichever kind of server tells of it."""

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
# The one whose width nobody knows comes last.
_HEADS = ("version", "state", "provider", "since", "parity", "golden", "labels")
_INDENT = "  "
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Listed:
    """A version of a model, or a model of which none is loaded; what a server does not tell is empty.

    `answers` says whether a request that names no version gets this one. `not_loaded` are the model's versions
    on disk that are neither served nor about to be.
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
    not_loaded: tuple[str, ...] = ()


def of_models(models: Iterable[ModelInfo]) -> list[Listed]:
    """From what Weir tells."""
    listed = []
    for model in models:
        known = {version.version for version in model.versions}
        rest = tuple(version for version in model.on_disk if version not in known)
        if not model.versions:
            listed.append(Listed(model.name, answers=False, not_loaded=rest))
        listed += [
            Listed(
                name=model.name,
                task=model.task,
                answers=version.version == model.answering,
                not_loaded=rest,
                **{key: getattr(version, key) for key in version.__slots__},
            )
            for version in model.versions
        ]
    return listed


def of_index(entries: Iterable[IndexEntry]) -> list[Listed]:
    """From what any server of the protocol tells."""
    return [
        Listed(entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        for entry in entries
    ]


def plain(listed: Iterable[Listed]) -> list[dict[str, object]]:
    """The same for programs: times in ISO 8601."""
    return [
        {**dataclasses.asdict(one), "since": one.since and one.since.isoformat()} for one in listed
    ]


def show(listed: Sequence[Listed], target: str, console: Console) -> None:
    """Print a heading for each model, below it a line for each version; columns nobody fills are left out."""
    now = datetime.now(UTC)
    rows = [_cells(one, now) for one in listed]
    heads = [head for head in _HEADS if any(row[head] for row in rows)]
    widths = {head: max(len(row[head]) for row in [*rows, {head: head}]) for head in heads}
    lines = [Text(f"models of {target}; * answers where no version is named", "italic")]
    lines += [_line({head: head for head in heads}, widths, "bold")]
    for _, group in groupby(listed, lambda one: one.name):
        lines += _model(list(group), widths, now)
    for line in lines:
        # A terminal breaks lines by itself, and a file keeps a reason whole.
        console.print(line, soft_wrap=True)


def ago(since: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0.0, (now - since).total_seconds())
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _model(versions: Sequence[Listed], widths: Mapping[str, int], now: datetime) -> list[Text]:
    name, task, rest = versions[0].name, versions[0].task, versions[0].not_loaded
    lines = [Text.assemble((name, "bold"), (f"  {task}" if task else "", "dim"))]
    # The server says it of every version, for it concerns them all.
    ours = {one.reason for one in versions if one.reason.startswith(FILE_NAME)}
    lines += [Text(indent(reason, _INDENT), _COLOURS["UNAVAILABLE"]) for reason in sorted(ours)]
    for one in versions:
        colour = _COLOURS.get(one.state, "")
        lines.append(_line(_cells(one, now), widths, colour))
        if one.reason and one.reason not in ours:
            lines.append(Text(indent(one.reason, _INDENT * 2), colour))
    if rest:
        lines.append(Text(f"{_INDENT}on disk, not loaded: {', '.join(rest)}", "dim"))
    return lines


def _cells(one: Listed, now: datetime) -> dict[str, str]:
    return {
        "version": f"{one.version} *" if one.answers else one.version,
        "state": one.state,
        "provider": one.provider,
        "since": ago(one.since, now) if one.since else "",
        "parity": _difference(one.parity),
        "golden": _difference(one.golden),
        "labels": ", ".join(one.labels),
    }


def _line(cells: Mapping[str, str], widths: Mapping[str, int], style: str) -> Text:
    text = _INDENT.join(cells[head].ljust(width) for head, width in widths.items())
    return Text(f"{_INDENT}{text.rstrip()}", style)


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"
