"""`make bench`: the main table of docs/results.md with short runs, in under 15 minutes.

    make demo && WEIR_DATA=... .venv/bin/python benchmarks/main_table.py [--runs runs] \
        [--only lenet loadgen ...] [--json FILE]

Each part runs one of the other scripts with few rounds and short loads. A line of the table is one
target: question, servers, ratio of the servers within a round, target, met or not. A part without
its data, its program or its finished run is skipped with the reason. The machine should be idle.

`--runs` holds finished runs of `weir train pronounce --data g014b2b` and `weir train translate`.
The run of `make demo` is too small: a step of its decoder takes less time than the server's own
work for it, so whole requests are faster.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks import images, lenet, lengths, loadgen
from benchmarks.lib import harness
from benchmarks.lib.generation_report import SATURATED, STEPS, WHOLE, case_of
from benchmarks.lib.harness import Run, Target, console
from benchmarks.lib.loadgen_client import SERVER

_HERE = Path(__file__).parent
_DATA = "WEIR_DATA"
_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A script with its short settings, and the targets that its runs are judged by.

    Attributes:
        missing: what it needs and does not find, or an empty text.
    """

    question: str
    script: str
    arguments: Sequence[str]
    targets: Sequence[Target]
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table."""

    question: str
    servers: str
    ratio: str
    target: str
    verdict: str


def main() -> None:
    """Run the parts and print the table."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = harness.parse(parser)
    started_s = time.perf_counter()
    environment = harness.start()
    lines = [line for name in given.only for line in measured(PARTS[name](given), given)]
    grid = Table("question", "servers", "ratio", "target", "")
    for each in lines:
        grid.add_row(each.question, each.servers, each.ratio, each.target, each.verdict)
    console.print(grid)
    met = sum(each.verdict == "met" for each in lines)
    console.print(
        f"{met} of {len(lines)} targets met, {(time.perf_counter() - started_s) / 60:.1f} minutes"
    )
    if given.json:
        lines_of = [{name: getattr(each, name) for name in Line.__slots__} for each in lines]
        given.json.write_text(json.dumps({**environment, "lines": lines_of}, indent=1) + "\n")


def measured(part: Part, given: Namespace) -> list[Line]:
    """The lines of a part: measured, skipped, or failed with the last lines that it printed."""
    if part.missing:
        return [Line(part.question, "", "", "", f"skipped: {part.missing}")]
    arguments = [*part.arguments, *(["--quick"] if given.quick else [])]
    console.print(f"[dim]{part.script} {' '.join(arguments)}[/]")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.json"
        command = [sys.executable, str(_HERE / part.script), *arguments]
        done = subprocess.run(
            [*command, "--work", str(given.work), "--json", str(file)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            printed = " ".join((done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:])
            return [Line(part.question, "", "", "", f"failed: {printed}")]
        return judged(part, harness.earlier(file))


def judged(part: Part, runs: Sequence[Run]) -> list[Line]:
    """A line for each target of a part whose case was measured."""
    return [
        Line(
            f"{part.question}: {target.question}",
            f"{target.of} / {target.to}",
            found.text(".2f"),
            target.text(),
            harness.verdict(target, found),
        )
        for target, found in harness.judged(runs, part.targets)
    ]


def _lenet(given: Namespace) -> Part:
    arguments = ["--models", str(given.models), "--rounds", "2", "--seconds", "1"]
    return Part("LeNet-5", "lenet.py", arguments, lenet.TARGETS, _no_h2load() or _no_demo(given))


def _loadgen(given: Namespace) -> Part:
    has_data = _DATA in os.environ
    models = loadgen.MODELS if has_data else (loadgen.LENET, loadgen.INCEPTION)
    arguments = [
        *("--models", str(given.models), "--model", *models),
        *("--scenario", SERVER, "--seconds", "3"),
    ]
    return Part("LoadGen", "loadgen.py", arguments, loadgen.TARGETS, _no_demo(given))


def _images(_: Namespace) -> Part:
    targets = [Target("rows_per_s", "no flags", "UINT8", images.RAW, 0.95)]
    arguments = ["--rounds", "1", "--seconds", "4", "--in-flight", "64"]
    question = "AlexNet, 224 pixels, 64 in flight"
    return Part(question, "images.py", arguments, targets, _no_h2load())


def _lengths(_: Namespace) -> Part:
    rivals = (lengths.WEIR, lengths.TWO_INSTANCES, lengths.INT8, lengths.TRITON)
    arguments = [
        *("--rivals", *rivals, "--in-flight", "64"),
        *("--rounds", "1", "--passes", "1"),
    ]
    return Part("BiLSTM-256 tagger, UD-EWT", "lengths.py", arguments, lengths.TARGETS, _no_data())


def _translate(given: Namespace) -> Part:
    run = given.runs / "translate"
    missing = _no_data() or ("" if run.exists() else f"{run} is missing")
    return _generation("German → English", run, 1.5, 0.5, missing)


def _pronounce(given: Namespace) -> Part:
    run = given.runs / "pronounce"
    missing = "" if run.exists() else f"{run} is missing"
    return _generation("letters → phonemes", run, 1.25, 0.6, missing)


def _generation(question: str, run: Path, faster: float, sooner: float, missing: str) -> Part:
    targets = [
        Target("calls_per_s", f"{run.name}, {SATURATED}", STEPS, WHOLE, faster),
        Target("p50_ms", f"{run.name}, {case_of(1.0)}", STEPS, WHOLE, sooner, at_least=False),
    ]
    arguments = [str(run), "--shares", "1.0", "--rounds", "1", "--seconds", "4"]
    return Part(question, "generation.py", arguments, targets, missing)


PARTS: dict[str, Callable[[Namespace], Part]] = {
    "lenet": _lenet,
    "loadgen": _loadgen,
    "images": _images,
    "lengths": _lengths,
    "translate": _translate,
    "pronounce": _pronounce,
}


def _no_h2load() -> str:
    return "" if shutil.which("h2load") else "h2load is missing: install nghttp2-client"


def _no_data() -> str:
    return "" if _DATA in os.environ else f"{_DATA} is not set"


def _no_demo(given: Namespace) -> str:
    folder = given.models / lenet.MODEL
    return "" if folder.exists() else f"{folder} is missing: run `make demo` first"


if __name__ == "__main__":
    main()
