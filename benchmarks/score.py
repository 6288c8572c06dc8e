"""Offline scoring beside raw ONNX Runtime on the same threads.

    make demo && .venv/bin/python benchmarks/score.py [--lenet .demo/models/lenet5/1] \
        [--tagger models/tagger/1] [--rows 1000000] [--repeat 100] [--threads 2] [--rounds 3] \
        [--work DIR] [--json FILE]

lenet5: random pictures in a Parquet file, as bytes of a fixed size and as lists of integers. Raw:
one session of one thread is run by as many threads, on batches that are in memory already, of the
bundle's own size. Nothing is read, checked or written.

tagger: the sentences of UD English-EWT's test set, many times over, as tokens in a Parquet file.
Raw: batches in memory, sorted by length over all sentences and tokenized already.

Raw ONNX Runtime and `weir score` take turns of half a second, each stopped while the other runs, so
that a machine whose speed changes is the same for both. The rate of `weir score` is from the first
row that is read to the complete file. Then a run of each is killed at a random moment and resumed,
and its output must have the bytes of one that was not.
"""

import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.lib import harness
from benchmarks.lib.harness import Column, Run, console
from benchmarks.lib.raw import raw_session
from weir.bundle.reader import MODEL, read
from weir.server.preprocessing.tokenized_text import TokenizedText
from weir.server.preprocessing.tokenizer import tokenizer_of
from weir.training.data import load_text

RAW, SCORE = "onnxruntime", "weir score"
TURN_S = 0.5
_POLL_S = 0.005

Batch = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model and its rows.

    Attributes:
        source: the rows for `weir score`.
        batches: makes the same rows for raw ONNX Runtime.
        bound: the least share of its speed.
        most_mib: of memory.
    """

    name: str
    bundle: Path
    source: Path
    batches: Callable[[], list[Batch]]
    bound: float | None = None
    most_mib: float | None = None


def main() -> None:
    """Measure both models, print the ratios, and exit with 1 if one is below its bound."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--lenet", type=Path, default=Path(".demo/models/lenet5/1"))
    parser.add_argument("--tagger", type=Path, help="a bundle of `weir train tagger`")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=100, help="of the test sentences")
    parser.add_argument("--threads", type=int, default=2)
    given = harness.parse(parser)
    environment = harness.start()
    rows, repeat = (100_000, 2) if given.quick else (given.rows, given.repeat)
    runs: list[Run] = []
    given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        work = Path(folder)
        pictures(work, rows)
        lenet = partial(lenet_batches, given.lenet, rows)
        as_bytes, as_lists = work / "bytes.parquet", work / "lists.parquet"
        cases = [
            Case("lenet5, bytes", given.lenet, as_bytes, lenet, bound=0.9, most_mib=400),
            # Parquet needs longer to read a list of small integers than LeNet-5 to compute it.
            Case("lenet5, lists", given.lenet, as_lists, lenet, most_mib=400),
        ]
        if given.tagger is not None:
            sentences(work / "tokens.parquet", repeat)
            tagger = partial(tagger_batches, given.tagger, repeat)
            tokens = work / "tokens.parquet"
            cases.append(Case("tagger, tokens", given.tagger, tokens, tagger, bound=0.9))
        for number in range(given.rounds):
            for case in cases:
                console.print(f"[dim]round {number + 1} of {given.rounds}: {case.name}[/]")
                raw, score = compared(case, work, given.threads)
                runs += [Run(RAW, case.name, number, raw), Run(SCORE, case.name, number, score)]
        for case in cases:
            resumed(case, work, given.threads)
    columns = (Column("rows/s", "rows_per_s"), Column("MiB", "mib"))
    console.print(harness.table(runs, columns))
    is_met = True
    for case in cases:
        found = harness.ratio(runs, "rows_per_s", case=case.name, of=SCORE, to=RAW)
        memory = harness.spread(runs, SCORE, case.name, "mib")
        is_met &= case.bound is None or found.median >= case.bound
        is_met &= case.most_mib is None or memory.most < case.most_mib
        console.print(
            f"{case.name}: {found.text('.3f')} of raw (≥ {case.bound or '-'}), "
            f"{memory.most:.0f} MiB (< {case.most_mib or '-'})"
        )
    harness.write(given.json, environment, runs)
    sys.exit(not is_met)


def pictures(work: Path, rows: int) -> None:
    """Random pictures of 28 x 28 bytes, as bytes and as lists; memory is that of a part."""
    generator = np.random.default_rng(0)
    raw, listed = pa.binary(784), pa.list_(pa.uint8())
    with (
        pq.ParquetWriter(work / "bytes.parquet", pa.schema([("image", raw)])) as as_bytes,
        pq.ParquetWriter(work / "lists.parquet", pa.schema([("image", listed)])) as as_lists,
    ):
        for start in range(0, rows, 50_000):
            count = min(50_000, rows - start)
            values = generator.integers(0, 256, count * 784, np.uint8)
            column = pa.FixedSizeBinaryArray.from_buffers(raw, count, [None, pa.py_buffer(values)])
            as_bytes.write_table(pa.table({"image": column}))
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * 784)
            column = pa.ListArray.from_arrays(offsets, pa.array(values))
            as_lists.write_table(pa.table({"image": column}))


def sentences(path: Path, repeat: int) -> None:
    """The test sentences as lists of tokens, many times over."""
    rows = [list(row) for row in load_text("ewt", "test").rows]
    with pq.ParquetWriter(path, pa.schema([("text", pa.list_(pa.string()))])) as writer:
        for _ in range(repeat):
            writer.write_table(pa.table({"text": pa.array(rows, pa.list_(pa.string()))}))


def lenet_batches(bundle: Path, rows: int) -> list[Batch]:
    """Batches of the bundle's own size; as many as there would be, of a few arrays."""
    size = read(bundle).contract.batching.max_rows
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (size, 28, 28, 1), np.uint8) for _ in range(64)]
    return [{"image": arrays[number % 64]} for number in range(-(-rows // size))]


def tagger_batches(bundle: Path, repeat: int) -> list[Batch]:
    """The tokenized sentences in batches, sorted by length over all of them."""
    loaded = read(bundle)
    tokenizer, size = tokenizer_of(loaded), loaded.contract.batching.max_rows
    assert tokenizer is not None, "expected a bundle that takes texts"  # noqa: S101
    texts = [tokenizer.look_up(list(row)) for row in load_text("ewt", "test").rows]
    texts = sorted(texts * repeat, key=lambda text: len(text.ids))
    limit = loaded.contract.batching.max_tokens
    batches: list[Batch] = []
    chosen: list[TokenizedText] = []
    for text in texts:
        if chosen and (
            len(chosen) == size or (limit and (len(chosen) + 1) * len(text.ids) > limit)
        ):
            batches.append(tokenizer.rows(chosen))
            chosen = []
        chosen.append(text)
    return [*batches, tokenizer.rows(chosen)]


@dataclass(frozen=True)
class Racer:
    """A process that has stopped before its first row.

    Attributes:
        is_done: called all the time while it runs.
    """

    pid: int
    is_done: Callable[[], bool]


def in_turns(racers: Sequence[Racer]) -> list[float]:
    """The seconds that each process takes; one runs at a time."""
    seconds = [0.0] * len(racers)
    waiting = [*enumerate(racers)]
    while waiting:
        for number, racer in [*waiting]:
            os.kill(racer.pid, signal.SIGCONT)
            started_s = time.perf_counter()
            while not (done := racer.is_done()) and time.perf_counter() - started_s < TURN_S:
                time.sleep(_POLL_S)
            if done:
                waiting.remove((number, racer))
            else:
                os.kill(racer.pid, signal.SIGSTOP)
            seconds[number] += time.perf_counter() - started_s
    return seconds


def compared(case: Case, work: Path, threads: int) -> tuple[dict[str, float], dict[str, float]]:
    """The rates of raw ONNX Runtime and of `weir score`, and the memory of the latter."""
    rows = pq.read_metadata(case.source).num_rows
    here, there = multiprocessing.Pipe()
    raw = multiprocessing.get_context("spawn").Process(
        target=run_raw, args=(case.bundle, case.batches, threads, there)
    )
    raw.start()
    there.close()  # so that the end of the process ends the pipe
    here.recv()
    os.kill(raw.pid or 0, signal.SIGSTOP)
    here.send("go")
    out = work / "scores.parquet"
    out.unlink(missing_ok=True)
    peaks, counter = [0.0], itertools.count()
    with subprocess.Popen(
        command(case, out, threads), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as score:
        # The first row is read after the folder of the parts is made.
        while not out.with_name(out.name + ".parts").exists():
            expect_running(score)
            time.sleep(_POLL_S)
        os.kill(score.pid, signal.SIGSTOP)

        def has_written() -> bool:
            expect_running(score, out)
            if next(counter) % 20 == 0:
                peaks.append(memory_mib(score.pid))
            return out.exists()

        raw_s, score_s = in_turns([Racer(raw.pid or 0, here.poll), Racer(score.pid, has_written)])
    raw.join()
    if raw.exitcode:
        sys.exit(f"onnxruntime: expected it to end, got exit code {raw.exitcode}")
    return {"rows_per_s": rows / raw_s}, {"rows_per_s": rows / score_s, "mib": max(peaks)}


def expect_running(score: subprocess.Popen[bytes], out: Path | None = None) -> None:
    """Exit if `weir score` has ended without its output."""
    if score.poll() is not None and not (out and out.exists()):
        sys.exit(f"weir score: expected an output, got exit code {score.returncode}")


def run_raw(
    bundle: Path, batches: Callable[[], list[Batch]], threads: int, parent: Connection
) -> None:
    """Run a session on every batch by several threads, as soon as the parent says so."""
    session = raw_session(bundle / MODEL, threads=1)
    made = batches()
    session.run(None, made[0])
    lock, waiting = threading.Lock(), iter(made)

    def work() -> None:
        while True:
            with lock:
                batch = next(waiting, None)
            if batch is None:
                return
            session.run(None, batch)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    parent.send("ready")
    parent.recv()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    parent.send("done")


def command(case: Case, out: Path, threads: int, *flags: str) -> list[str]:
    """`weir score` on the CPU."""
    arguments = [
        str(case.bundle),
        "--in",
        str(case.source),
        "--out",
        str(out),
        "--threads",
        str(threads),
    ]
    return [sys.executable, "-m", "weir.score", *arguments, "--provider", "cpu", *flags]


def memory_mib(pid: int) -> float:
    """The peak of a process's resident memory; a part of it is that of mapped files."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak[1]) / 1024 if peak else 0.0


def resumed(case: Case, work: Path, threads: int) -> None:
    """Kill a run at a random moment, resume it, and compare its output with the last whole one."""
    whole, out = work / "whole.parquet", work / "resumed.parquet"
    shutil.rmtree(work / "resumed.parquet.parts", ignore_errors=True)
    for path in (whole, out):
        path.unlink(missing_ok=True)
    started_s = time.perf_counter()
    subprocess.run(command(case, whole, threads), check=True, capture_output=True)
    took_s = time.perf_counter() - started_s
    parts = out.with_name(out.name + ".parts")
    while not parts.exists():
        out.unlink(missing_ok=True)
        with subprocess.Popen(command(case, out, threads)) as process:
            time.sleep(random.uniform(0.2, 0.9) * took_s)
            process.kill()
    count = len(list(parts.glob("*.arrow")))
    subprocess.run(command(case, out, threads, "--resume"), check=True, capture_output=True)
    is_same = out.read_bytes() == whole.read_bytes()
    verdict = "the same bytes" if is_same else "OTHER BYTES"
    console.print(f"{case.name}: killed after {count} parts, resumed: {verdict}")
    if not is_same:
        sys.exit(1)


if __name__ == "__main__":
    main()
