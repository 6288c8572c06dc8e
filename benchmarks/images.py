"""AlexNet, one 224 x 224 picture per call: Weir beside raw ONNX Runtime, in three input forms.

    .venv/bin/python benchmarks/images.py [--json FILE] [--threads 1 2] [--seconds 8] [--rounds 3]

Raw ONNX Runtime has the server's options and threads, and its best batch size, which is measured
first. It and the three forms then take turns, round by round, for the given seconds each. A ratio
compares neighbours in a round. The forms are: normalised pixels (FP32), pixels (UINT8), and a JPEG
file of quality 90 for `weir.v1.Tasks/Classify`. The server preprocesses the JPEG as the published
weights require: resize to 256, crop to 224. The pictures are centre crops of scikit-learn's
photographs, in turn.

The first run makes the bundles, which takes two minutes and 490 MB under `.bench/`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.lib import alexnet
from benchmarks.lib.harness import console
from benchmarks.lib.http2 import framed
from benchmarks.lib.load import MODEL_INFER, Load, Outcome, infer_body, measure, require_h2load
from benchmarks.lib.machine import busy_cores, machine, raw_session
from benchmarks.lib.servers import serving
from weir.protocol import tasks_pb2

RAW, FORMS = "raw ONNX Runtime", ("UINT8", "FP32", "JPEG")
STREAMS = 16
TARGET = 0.95
_BATCHES = (1, 2, 4, 8, 16, 32)
_SWEEP_SHARE = 0.25
_TRIAL_CALLS = 3 * STREAMS
# With more other load than this, two threads would measure that load too.
_QUIET_CORES = 0.2


@dataclass(frozen=True, slots=True)
class Raw:
    """Throughput of ONNX Runtime without a server, in one round."""

    rows_per_s: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Round:
    """Neighbouring measurements with the same number of threads; sizes and results by form."""

    threads: int
    batch_rows: int
    raw: Raw
    request_bytes: dict[str, int]
    outcomes: dict[str, Outcome]


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path(".bench/models"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1, and 2 if both are free")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    require_h2load()
    alexnet.make_bundles(arguments.models)
    busy = busy_cores()
    sweeps, rounds = {}, []
    for threads in arguments.threads or ((1, 2) if busy <= _QUIET_CORES else (1,)):
        sweeps[threads] = sweep(
            arguments.models, threads, arguments.seconds * _SWEEP_SHARE, arguments.rounds
        )
        rounds += take_turns(
            arguments.models,
            threads=threads,
            batch_rows=max(sweeps[threads], key=sweeps[threads].__getitem__),
            seconds=arguments.seconds,
            rounds=arguments.rounds,
        )
    report(sweeps, rounds, busy)
    if arguments.json:
        document = {
            "machine": machine(),
            "command": sys.argv,
            "busy_cores_before": busy,
            "raw_rows_per_s": sweeps,
            "rounds": [asdict(each) for each in rounds],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def sweep(models: Path, threads: int, seconds: float, rounds: int) -> dict[int, float]:
    """Rows per second of raw ONNX Runtime by batch size; the sizes take turns, medians count."""
    console.print(f"[dim]{threads} thread(s): raw ONNX Runtime, batches of {_BATCHES}[/]")
    runner = RawRunner(models, threads)
    rates: dict[int, list[float]] = {rows: [] for rows in _BATCHES}
    for _ in range(rounds):
        for rows in _BATCHES:
            rates[rows].append(runner.run(rows, seconds).rows_per_s)
    return {rows: statistics.median(found) for rows, found in rates.items()}


class RawRunner:
    """AlexNet in raw ONNX Runtime, on photographs."""

    def __init__(self, models: Path, threads: int) -> None:
        graph = models / alexnet.PICTURES / "1" / "model.onnx"
        self._session = raw_session(graph, threads)
        pictures = alexnet.photographs()
        self._pictures = np.stack([pictures[row % len(pictures)] for row in range(max(_BATCHES))])

    def run(self, rows: int, seconds: float) -> Raw:
        """Run one batch repeatedly, after one unmeasured run."""
        inputs = {"image": self._pictures[:rows]}
        self._session.run(None, inputs)
        runs, cpu_s, started_s = 0, time.process_time(), time.perf_counter()
        while (elapsed_s := time.perf_counter() - started_s) < seconds or not runs:
            self._session.run(None, inputs)
            runs += 1
        cpu_us = (time.process_time() - cpu_s) / (runs * rows) * 1e6
        return Raw(rows_per_s=runs * rows / elapsed_s, cpu_us=cpu_us)


def take_turns(
    models: Path, *, threads: int, batch_rows: int, seconds: float, rounds: int
) -> list[Round]:
    """Every round; the server is idle while raw ONNX Runtime runs."""
    names = (alexnet.PICTURES, alexnet.TENSORS)
    runner = RawRunner(models, threads)
    measured = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(models, names, "--threads", str(threads)) as server,
    ):
        for number in range(rounds):
            console.print(f"[dim]{threads} thread(s): round {number + 1} of {rounds}[/]")
            raw = runner.run(batch_rows, seconds)
            sizes, outcomes = {}, {}
            for form, load in loads(Path(folder), number).items():
                sizes[form] = load.body.stat().st_size
                outcomes[form] = measure(server, load, trial_calls=_TRIAL_CALLS, seconds=seconds)
            measured.append(Round(threads, batch_rows, raw, sizes, outcomes))
    return measured


def loads(folder: Path, number: int) -> dict[str, Load]:
    """A photograph in each form; the next round takes the next photograph."""
    pictures = alexnet.photographs()
    picture = pictures[number % len(pictures)]
    classify = tasks_pb2.ClassifyRequest(
        model_name=alexnet.PICTURES, pictures=[tasks_pb2.Picture(encoded=alexnet.jpeg(picture))]
    )
    bodies = {
        "UINT8": infer_body(alexnet.PICTURES, image=picture[np.newaxis]),
        "FP32": infer_body(alexnet.TENSORS, image=alexnet.normalise(picture)),
        "JPEG": framed(classify.SerializeToString()),
    }
    made = {}
    for form in FORMS:
        file = folder / form
        file.write_bytes(bodies[form])
        path = "/weir.v1.Tasks/Classify" if form == "JPEG" else MODEL_INFER
        made[form] = Load(path, file, connections=1, streams=STREAMS)
    return made


def report(sweeps: dict[int, dict[int, float]], rounds: list[Round], busy: float) -> None:
    """Medians over the rounds, and the spread of the throughput."""
    console.print(machine(), highlight=False)
    generator_cores = max(
        outcome.generator_cpu_us * outcome.calls_per_s / 1e6
        for each in rounds
        for outcome in each.outcomes.values()
    )
    console.print(
        f"load: one h2load on the same cores, not pinned, 1 connection of {STREAMS} streams, took "
        f"{generator_cores:.3f} cores at most; every call counted on the server as OK\n"
        f"other work kept {busy:.2f} cores busy beforehand",
        highlight=False,
    )
    for threads, swept in sweeps.items():
        rates = ", ".join(f"{rows}: {rate:.1f}" for rows, rate in swept.items())
        console.print(f"raw ONNX Runtime, {threads} thread(s), rows/s by batch: {rates}")
    table = Table(
        "threads", "what", "request bytes", "rows/s", "min-max", "of raw", "p50 ms", "p99 ms",
        "batch", "in session", "rows/s there", "CPU ms/row",
    )  # fmt: skip
    for threads in sweeps:
        same = [each for each in rounds if each.threads == threads]
        table.add_row(str(threads), RAW, *raw_cells(same))
        for form in FORMS:
            table.add_row(str(threads), form, *form_cells(same, form))
    console.print(table)
    for threads in sweeps:
        ratio = statistics.median(
            ratio_to_raw(each, "UINT8") for each in rounds if each.threads == threads
        )
        console.print(f"UINT8 / raw, {threads} thread(s): {ratio:.3f} (target {TARGET})")


def raw_cells(rounds: list[Round]) -> list[str]:
    """The table row of raw ONNX Runtime."""
    rates = [each.raw.rows_per_s for each in rounds]
    cpu_us = statistics.median(each.raw.cpu_us for each in rounds)
    return [
        "", f"{statistics.median(rates):.1f}", f"{min(rates):.1f}-{max(rates):.1f}", "", "", "",
        str(rounds[0].batch_rows), "", "", f"{cpu_us / 1000:.1f}",
    ]  # fmt: skip


def form_cells(rounds: list[Round], form: str) -> list[str]:
    """The table row of one input form."""
    outcomes = [each.outcomes[form] for each in rounds]

    def median(name: str) -> float:
        return float(statistics.median(getattr(outcome, name) for outcome in outcomes))

    rates = [outcome.calls_per_s for outcome in outcomes]
    sizes = sorted({each.request_bytes[form] for each in rounds})
    shares = [outcome.compute_us * outcome.calls_per_s / 1e6 for outcome in outcomes]
    return [
        " / ".join(f"{size:,}" for size in sizes),
        f"{median('calls_per_s'):.1f}",
        f"{min(rates):.1f}-{max(rates):.1f}",
        f"{statistics.median(ratio_to_raw(each, form) for each in rounds):.3f}",
        f"{median('p50_ms'):.0f}",
        f"{median('p99_ms'):.0f}",
        f"{median('mean_batch_rows'):.1f}",
        f"{statistics.median(shares):.1%}",
        f"{1e6 / median('compute_us'):.1f}",
        f"{median('cpu_us') / 1000:.1f}",
    ]


def ratio_to_raw(measured: Round, form: str) -> float:
    """The server's rows per second relative to raw ONNX Runtime in the same round."""
    return measured.outcomes[form].calls_per_s / measured.raw.rows_per_s


if __name__ == "__main__":
    main()
