"""Hot reload under load: lost calls, wrong answers, and memory that stays behind.

    .venv/bin/python benchmarks/reload.py [--json FILE] [--every 4] [--rate 300]

A server with `--model-control explicit` holds two models: a fingerprint model, whose rows contain
its version, and AlexNet for pictures of 32 pixels with random weights (8 MB). An open loop calls
both in turn. At first nothing changes. Then every few seconds a new fingerprint version is loaded,
and AlexNet is reloaded. Of the fingerprint's versions 50 are good, 10 are broken and 5 are half
copied, in random order. The server must load the good ones and reject the others. Every answer is
checked.

Memory is read just before each change. Between the fifth good version and the last it may grow by a
tenth. Exits with 1 after more growth, a failed call or a wrong answer.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.lib import fingerprint, harness, load, servers
from benchmarks.lib.fingerprint import Kind
from benchmarks.lib.harness import Column, Run, console
from benchmarks.lib.http2 import messages
from benchmarks.lib.load import MODEL_INFER
from benchmarks.lib.load_generator import Record, Schedule
from benchmarks.lib.raw import raw_session
from benchmarks.lib.servers import Server
from benchmarks.memory import MOST_GROWTH, resident_mib
from weir import Client
from weir.bench.tally import percentile
from weir.bundle.reader import MODEL
from weir.client.errors import FailedPrecondition
from weir.export.publishing import publish
from weir.export.runs.images import INPUT
from weir.export.spec import ExportSpec
from weir.protocol import inference_pb2 as pb
from weir.training.models.alexnet import AlexNet

LARGE = "alexnet32"
COLUMNS = (
    Column("requests", "requests", ",.0f", "median"),
    Column("failures", "failures", ",.0f", "median"),
    Column("mismatches", "mismatches", ",.0f", "median"),
    Column("p50 ms", "p50_ms", ".2f", "median"),
    Column("p99 ms", "p99_ms", ".2f", "median"),
    Column("longest ms", "p100_ms", ".2f", "median"),
)
STILL, RELOADING = "serves", "reloads"
WARM_UP = 5
_COUNTS = {Kind.GOOD: 50, Kind.BROKEN: 10, Kind.HALF_COPIED: 5}
_QUICK_COUNTS = {Kind.GOOD: 7, Kind.BROKEN: 2, Kind.HALF_COPIED: 1}
_SIDE = 32
_QUESTIONS = 32
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """The request bodies, framed, and the check of their answers."""

    body: bytes
    is_right: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """A change, the duration of its two loads, and the memory just before the next change."""

    kind: str
    load_s: float
    large_s: float
    resident_mib: float
    files: int
    threads: int


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("--every", type=float, default=4.0, help="seconds from change to change")
    parser.add_argument("--rate", type=float, default=300.0, help="calls a second")
    given = harness.parse(parser)
    kinds = schedule(_QUICK_COUNTS if given.quick else _COUNTS)
    environment = harness.start()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        requests = prepare(models)
        names = [fingerprint.NAME, LARGE]
        with servers.serving(models, names, "--model-control", "explicit") as server:
            seconds = len(kinds) * given.every
            still = figures(requests, send(server, requests, given.rate, seconds / 2))
            with ThreadPoolExecutor(1) as pool:
                sending = pool.submit(send, server, requests, given.rate, seconds)
                steps = list(changes(server, models, kinds, given.every))
                if sending.done():
                    sys.exit("run void: the changes outlasted the load, take a longer --every")
                reloading = figures(requests, sending.result())
    runs = [Run("weir", STILL, 0, still), Run("weir", RELOADING, 0, reloading)]
    growth = report(runs, steps)
    harness.write(given.json, {**environment, "steps": [asdict(step) for step in steps]}, runs)
    lost = any(run.figures[figure] for run in runs for figure in ("failures", "mismatches"))
    sys.exit(lost or growth > MOST_GROWTH)


def schedule(counts: Mapping[Kind, int]) -> list[Kind]:
    """The kind of each version, in an order that is always the same."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return [kinds[place] for place in np.random.default_rng(0).permutation(len(kinds))]


def prepare(models: Path) -> list[CheckedRequest]:
    """Publish the first version of both models; returns the request bodies in turn."""
    random = np.random.default_rng(0)
    fingerprint.publish(models, 1, Kind.GOOD, random)
    torch.manual_seed(0)
    spec = ExportSpec(architecture="alexnet", outputs=("logits",))
    network = AlexNet(classes=10, height=_SIDE, width=_SIDE)
    publish(network, {INPUT: torch.rand(2, 3, _SIDE, _SIDE)}, spec, to=models, name=LARGE)
    session = raw_session(models / LARGE / "1" / MODEL, threads=1)
    requests = []
    for number in range(_QUESTIONS):
        rows = random.integers(-(2**40), 2**40, (1 + number % 3, 5))
        image = random.random((1, 3, _SIDE, _SIDE), np.float32)
        requests += [_of_rows(rows), _of_picture(image, session.run(["logits"], {INPUT: image})[0])]
    return requests


def _of_rows(rows: NDArray[np.int64]) -> CheckedRequest:
    body = load.infer_body(fingerprint.NAME, row=rows)
    return CheckedRequest(body, lambda answer: fingerprint.is_right(answer, rows))


def _of_picture(image: NDArray[np.float32], logits: NDArray[np.float32]) -> CheckedRequest:
    def is_right(answer: bytes) -> bool:
        (message,) = messages(answer)
        (raw,) = pb.ModelInferResponse.FromString(message).raw_output_contents
        got = np.frombuffer(raw, np.float32).reshape(logits.shape)
        return np.allclose(got, logits, rtol=_TOLERANCE, atol=_TOLERANCE)

    return CheckedRequest(load.infer_body(LARGE, image=image), is_right)


def send(
    server: Server, requests: Sequence[CheckedRequest], rate_per_s: float, seconds: float
) -> Record:
    """Call with every request in turn for a number of seconds."""
    due_s = load.due_times_s(rate_per_s, int(rate_per_s * seconds), seed=0)
    bodies = [request.body for request in requests]
    order = [number % len(bodies) for number in range(len(due_s))]
    return load.send_open(Schedule(server.target, MODEL_INFER, bodies, order, due_s=due_s))


def figures(requests: Sequence[CheckedRequest], record: Record) -> dict[str, float]:
    """The check of all answers."""
    latencies_ms = load.seen(record).latencies_ms
    answered = [
        (requests[number % len(requests)], answer)
        for number, answer in enumerate(record.answers)
        if answer
    ]
    wrong = sum(not request.is_right(answer) for request, answer in answered)
    return {
        "requests": len(record.answers),
        "failures": len(record.answers) - len(answered),
        "mismatches": wrong,
        **{f"p{each}_ms": percentile(latencies_ms, each) for each in (50, 99, 100)},
    }


def changes(server: Server, models: Path, kinds: Sequence[Kind], every_s: float) -> Iterator[Step]:
    """Load a version of each kind, and reload the large model; exit if one is misjudged."""
    random, began_s, serving = np.random.default_rng(0), time.monotonic(), 1
    with Client(server.target) as client:
        for number, kind in enumerate(kinds):
            fingerprint.publish(models, number + 2, kind, random)
            started_s = time.monotonic()
            is_taken = _load(client)
            load_s = time.monotonic() - started_s
            serving = number + 2 if kind is Kind.GOOD else serving
            answer = client.infer(fingerprint.NAME, np.array([[1]]))
            if is_taken != (kind is Kind.GOOD) or answer.version != str(serving):
                sys.exit(
                    f"version {number + 2}, {kind.value}: loaded: {is_taken}, "
                    f"{answer.version} answers"
                )
            client.load(LARGE, reload=True)
            large_s = time.monotonic() - started_s - load_s
            time.sleep(max(0.0, began_s + (number + 1) * every_s - 0.5 - time.monotonic()))
            yield Step(kind.value, load_s, large_s, *_held(server.pid))


def _load(client: Client) -> bool:
    try:
        client.load(fingerprint.NAME)
    except FailedPrecondition:
        return False
    return True


def _held(pid: int) -> tuple[float, int, int]:
    process = Path(f"/proc/{pid}")
    files, threads = (sum(1 for _ in (process / each).iterdir()) for each in ("fd", "task"))
    return resident_mib(pid), files, threads


def report(runs: Sequence[Run], steps: Sequence[Step]) -> float:
    """Print all results; returns the memory growth after the warm-up as a share."""
    console.print(harness.table(runs, COLUMNS))
    good = [step for step in steps if step.kind == Kind.GOOD.value]
    held = Table("after", "MiB", "files", "threads")
    for number in (WARM_UP, len(good)):
        step = good[number - 1]
        figures = (f"{step.resident_mib:.1f}", str(step.files), str(step.threads))
        held.add_row(f"{number} good versions", *figures)
    console.print(held)
    load_s, large_s = ([getattr(step, each) for step in good] for each in ("load_s", "large_s"))
    for name, times_s in ((fingerprint.NAME, load_s), (LARGE, large_s)):
        median, most = statistics.median(times_s), max(times_s)
        console.print(f"{name}: {median:.2f} s a load, at most {most:.2f}")
    growth = good[-1].resident_mib / good[WARM_UP - 1].resident_mib - 1
    console.print(f"memory grew by {growth:+.1%}; it may by {MOST_GROWTH:.0%}")
    return growth


if __name__ == "__main__":
    main()
