"""AlexNet, one 224 x 224 picture per call: Weir beside raw ONNX Runtime, in three input forms.

    .venv/bin/python benchmarks/images.py [--json FILE] [--threads 1 2] [--seconds 8] \
        [--rounds 3] [--in-flight 16]

Without `--threads` the server has no flags, and raw ONNX Runtime all usable cores; with it both
have that many threads. Raw ONNX Runtime has the server's options, and its best batch size, which is
measured first: 32 rows, which the server reaches only with 64 calls in flight. It and the three
forms then take turns, round by round, for the given seconds each. A ratio compares neighbours in a
round. The forms are: normalised pixels (FP32), pixels (UINT8), and
a JPEG file of quality 90 for `weir.v1.Tasks/Classify`. The server preprocesses the JPEG as the
published weights require: resize to 256, crop to 224. The pictures are centre crops of
scikit-learn's photographs, in turn.

The first run makes the bundles, which takes two minutes and 490 MB under `.bench/`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.lib import alexnet, harness, load, servers
from benchmarks.lib.harness import Column, Run, console
from benchmarks.lib.http2 import framed
from benchmarks.lib.load import MODEL_INFER, Load
from benchmarks.lib.raw import raw_session, speed
from weir.protocol import tasks_pb2
from weir.server.runtime.cores import usable_cores

RAW, FORMS = "raw ONNX Runtime", ("UINT8", "FP32", "JPEG")
TARGET = "target 0.95"
COLUMNS = (
    Column("request bytes", "request_bytes"),
    Column("rows/s", "rows_per_s", ".1f"),
    Column("of raw", "of_raw", ".3f", "median"),
    Column("p50 ms", "p50_ms", ".0f", "median"),
    Column("p99 ms", "p99_ms", ".0f", "median"),
    Column("batch", "mean_batch_rows", ".1f", "median"),
    Column("in session", "in_session", ".1%", "median"),
    Column("µs there", "compute_us", ",.0f", "median"),
    Column("CPU µs/row", "cpu_us", ",.0f", "median"),
    Column("generator's CPU µs", "generator_cpu_us", ".0f", "most"),
)
_BATCHES = (1, 2, 4, 8, 16, 32)
_SWEEP_SHARE = 0.25
_TRIAL_TURNS = 3


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--models", type=Path, default=Path(".bench/models"))
    parser.add_argument("--threads", type=int, nargs="+", help="default: the server chooses")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = harness.parse(parser)
    load.require_h2load()
    alexnet.make_bundles(given.models)
    environment = harness.start()
    seconds, runs = 0.5 if given.quick else given.seconds, []
    for threads in given.threads or (None,):
        label = "no flags" if threads is None else f"{threads} thread(s)"
        runner = RawRunner(given.models, threads or usable_cores(), label)
        swept = sweep(runner, seconds * _SWEEP_SHARE, given.rounds)
        console.print(harness.table(swept, COLUMNS[1:2], title=label))
        runs += swept
        names = (alexnet.PICTURES, alexnet.TENSORS)
        flags = () if threads is None else ("--threads", str(threads))
        with servers.serving(given.models, names, *flags) as server:
            for number in range(given.rounds):
                for name, figures in measure(runner, server, number, seconds, given.in_flight):
                    runs.append(Run(name, label, number, figures))
    compared = [run for run in runs if "batches" not in run.case]
    console.print(harness.table(compared, COLUMNS))
    for case in dict.fromkeys(run.case for run in compared):
        harness.print_ratio(runs, "rows_per_s", case=case, of="UINT8", to=RAW, target=TARGET)
    harness.write(given.json, environment, runs)


class RawRunner:
    """AlexNet in raw ONNX Runtime, on photographs.

    Attributes:
        best_rows: the batch size of the most rows a second, once `sweep` has found it.
    """

    def __init__(self, models: Path, threads: int, label: str) -> None:
        self.label, self.best_rows = label, max(_BATCHES)
        self._session = raw_session(models / alexnet.PICTURES / "1" / "model.onnx", threads)
        pictures = alexnet.photographs()
        self._pictures = np.stack([pictures[row % len(pictures)] for row in range(max(_BATCHES))])

    def run(self, rows: int, seconds: float) -> dict[str, float]:
        """The speed with batches of this many rows."""
        return speed(self._session, {"image": self._pictures[:rows]}, rows, seconds)


def sweep(runner: RawRunner, seconds: float, rounds: int) -> list[Run]:
    """Raw ONNX Runtime with every batch size in turn; the runner keeps the best size."""
    runs = [
        Run(RAW, f"{runner.label}, batches of {rows}", number, runner.run(rows, seconds))
        for number in range(rounds)
        for rows in _BATCHES
    ]
    medians = [
        harness.spread(runs, RAW, case, "rows_per_s").median
        for case in dict.fromkeys(run.case for run in runs)
    ]
    runner.best_rows = _BATCHES[medians.index(max(medians))]
    return runs


def measure(
    runner: RawRunner, server: servers.Server, number: int, seconds: float, in_flight: int
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """One round: raw ONNX Runtime, while the server is idle, then every form."""
    console.print(f"[dim]{runner.label}: round {number + 1}[/]")
    raw = runner.run(runner.best_rows, seconds)
    yield RAW, raw
    with tempfile.TemporaryDirectory() as folder:
        for form, shaped in loads(Path(folder), number, in_flight).items():
            outcome = load.measure(
                server, shaped, trial_calls=_TRIAL_TURNS * in_flight, seconds=seconds
            )
            yield (
                form,
                {
                    **asdict(outcome),
                    "rows_per_s": outcome.calls_per_s,
                    "request_bytes": shaped.body.stat().st_size,
                    "of_raw": outcome.calls_per_s / raw["rows_per_s"],
                },
            )


def loads(folder: Path, number: int, in_flight: int) -> dict[str, Load]:
    """A photograph in each form; the next round takes the next photograph."""
    pictures = alexnet.photographs()
    picture = pictures[number % len(pictures)]
    classify = tasks_pb2.ClassifyRequest(
        model_name=alexnet.PICTURES, pictures=[tasks_pb2.Picture(encoded=alexnet.jpeg(picture))]
    )
    bodies = {
        "UINT8": load.infer_body(alexnet.PICTURES, image=picture[np.newaxis]),
        "FP32": load.infer_body(alexnet.TENSORS, image=alexnet.normalise(picture)),
        "JPEG": framed(classify.SerializeToString()),
    }
    made = {}
    for form in FORMS:
        file = folder / form
        file.write_bytes(bodies[form])
        path = "/weir.v1.Tasks/Classify" if form == "JPEG" else MODEL_INFER
        made[form] = Load(path, file, connections=1, streams=in_flight)
    return made


if __name__ == "__main__":
    main()
