"""Benchmark harness: rivals take turns, round by round; results are medians and ratios of rounds.

In each round every rival starts as a process of its own, is measured in every case, and stops
before the next one starts: A B C A B C. A ratio compares two rivals within one round, so that a
slow phase of the machine affects both. The harness reports the median, the minimum and the maximum
of the rounds' ratios.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.lib import virtual_environments
from benchmarks.lib.machine import busy_cores, machine
from benchmarks.lib.servers import Server

console = Console(width=150)


@dataclass(frozen=True, slots=True)
class Rival:
    """A server to measure; `start` runs it."""

    name: str
    start: Callable[[], AbstractContextManager[Server]]


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one rival in one case in one round, by name."""

    rival: str
    case: str
    round: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the range of one figure over the rounds."""

    median: float
    least: float
    most: float

    def text(self, form: str = ",.0f") -> str:
        """`12 (11-13)`."""
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound of the ratio of a figure of one rival, `of`, to that of another, `to`, in a case."""

    figure: str
    case: str
    of: str
    to: str
    bound: float
    at_least: bool = True

    @property
    def question(self) -> str:
        """The figure and its case."""
        return f"{self.figure}, {self.case}"

    def is_met(self, found: float) -> bool:
        """Whether a ratio is within the bound."""
        return found >= self.bound if self.at_least else found <= self.bound

    def text(self) -> str:
        """`≥ 1.2`."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


class Column(NamedTuple):
    """A column of a table: a figure over the rounds, or only its median, least or most."""

    title: str
    figure: str
    form: str = ",.0f"
    part: str = ""


def take_turns(
    rivals: Sequence[Rival],
    rounds: int,
    measure: Callable[[Rival, Server], Iterable[tuple[str, Mapping[str, float]]]],
) -> list[Run]:
    """Measure every rival in every round; `measure` yields the cases of a running rival."""
    runs = []
    for number in range(rounds):
        for rival in rivals:
            console.print(f"[dim]round {number + 1} of {rounds}: {rival.name}[/]")
            with rival.start() as server:
                for case, figures in measure(rival, server):
                    runs.append(Run(rival.name, case, number, dict(figures)))
    return runs


def spread(runs: Iterable[Run], rival: str, case: str, figure: str) -> Spread:
    """A figure of a rival in a case, over the rounds."""
    return _spread([run.figures[figure] for run in runs if (run.rival, run.case) == (rival, case)])


def ratio(runs: Sequence[Run], figure: str, *, case: str, of: str, to: str) -> Spread:
    """The ratio of a figure of two rivals within a round, over the rounds with both."""
    ours, theirs = (
        {run.round: run.figures[figure] for run in runs if (run.rival, run.case) == (name, case)}
        for name in (of, to)
    )
    shared = ours.keys() & theirs.keys()
    return _spread([ours[number] / theirs[number] for number in sorted(shared)])


def table(runs: Sequence[Run], columns: Sequence[Column], *, title: str | None = None) -> Table:
    """A row per rival and case; a figure that was not measured stays empty."""
    grid = Table("server", "load", *(column.title for column in columns), title=title)
    for rival, case in dict.fromkeys((run.rival, run.case) for run in runs):
        figures = [run.figures for run in runs if (run.rival, run.case) == (rival, case)]
        cells = []
        for column in columns:
            values = [each[column.figure] for each in figures if column.figure in each]
            cells.append(_cell(_spread(values), column) if values else "")
        grid.add_row(rival, case, *cells)
    return grid


def _cell(found: Spread, column: Column) -> str:
    part: float = getattr(found, column.part) if column.part else found.median
    return f"{part:{column.form}}" if column.part else found.text(column.form)


def print_ratio(
    runs: Sequence[Run], figure: str, *, case: str, of: str, to: str, target: str = ""
) -> None:
    """Print a ratio with its target, unless one of the two was not measured."""
    if {(of, case), (to, case)} <= {(run.rival, run.case) for run in runs}:
        found = ratio(runs, figure, case=case, of=of, to=to).text(".2f")
        console.print(f"{figure}, {case}: {of} / {to} {found}{target and f', {target}'}")


def print_targets(runs: Sequence[Run], targets: Iterable[Target]) -> None:
    """Print a line for every target whose case was measured: ratio, target, met or not."""
    for target, found in judged(runs, targets):
        console.print(
            f"{target.question}: {target.of} / {target.to} {found.text('.2f')}, "
            f"target {target.text()}: {verdict(target, found)}",
            highlight=False,
        )


def judged(runs: Sequence[Run], targets: Iterable[Target]) -> list[tuple[Target, Spread]]:
    """The targets whose case was measured on both sides, each with its ratio."""
    measured = {(run.rival, run.case) for run in runs if run.figures}
    return [
        (each, ratio(runs, each.figure, case=each.case, of=each.of, to=each.to))
        for each in targets
        if {(each.of, each.case), (each.to, each.case)} <= measured
    ]


def verdict(target: Target, found: Spread) -> str:
    """Whether the median of the rounds meets a target."""
    return "met" if target.is_met(found.median) else "not met"


def arguments(
    description: str, *, rounds: int, can_append: bool = False
) -> argparse.ArgumentParser:
    """The options of every server benchmark; `--append` is for those that read earlier runs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run, to this file")
    if can_append:
        parser.add_argument(
            "--append",
            action="store_true",
            help="count the rounds already in the --json file as well",
        )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a chart, as PNG")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--work",
        type=Path,
        default=virtual_environments.default_folder(),
        help="for the rivals' programs",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round, to see that all of it works"
    )
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options given; --quick means one round."""
    given = parser.parse_args()
    given.rounds = 1 if given.quick else given.rounds
    return given


def start() -> dict[str, object]:
    """Machine, command and other load, printed and returned; call it before anything runs."""
    environment = {
        "machine": machine(),
        "command": sys.argv,
        "busy_cores_before": round(busy_cores(), 2),
    }
    console.print(
        f"{environment['machine']}\n"
        f"other load kept {environment['busy_cores_before']} cores busy beforehand",
        highlight=False,
    )
    return environment


def earlier(path: Path | None) -> list[Run]:
    """The runs of a file that `write` wrote; none without a file."""
    if path is None or not path.exists():
        return []
    return [Run(**each) for each in json.loads(path.read_text())["runs"]]


def appended(before: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
    """Earlier runs and new ones; new rounds are numbered after the earlier ones."""
    first = 1 + max((run.round for run in before), default=-1)
    return [*before, *(replace(run, round=run.round + first) for run in runs)]


def write(path: Path | None, environment: Mapping[str, object], runs: Sequence[Run]) -> None:
    """Write all measurements to a file, if one is given."""
    if path:
        document = {**environment, "runs": [asdict(run) for run in runs]}
        path.write_text(json.dumps(document, indent=1) + "\n")


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
