"""Scoring: read → prepare → score → write, part by part.

Threads: the caller's reads, prepares, writes parts and encodes the output; a pool scores batches.
A few parts are in memory at a time, whatever the length of the input. Parts that are written
already are not scored again.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from weir.client.errors import UsageError
from weir.score.binding import Binding
from weir.score.part_files import PartFiles
from weir.score.rows import ERROR, Part, PreparedPart, Scorer, Scores, assemble, schema_of
from weir.score.sources.base import Source, in_parts

# While one part is scored, the next one waits and another is read. With many threads, or parts of
# few batches, there are more.
_PARTS_IN_MEMORY = 3
# A thread that tokenizes holds the interpreter; one that ended a run of a millisecond waits for it.
_SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Scored:
    """The result of a run.

    Attributes:
        rows: of the output.
        resumed: those among them that an earlier run had scored.
        errors: rows without scores.
    """

    rows: int
    resumed: int
    errors: int


def shard_of(rows: int, number: int, count: int) -> tuple[int, int]:
    """The first row of a shard and the row after its last; shards are numbered from 1."""
    return rows * (number - 1) // count, rows * number // count


def score(
    scorer: Scorer,
    source: Source,
    out: Path,
    *,
    binding: Binding,
    keep: Sequence[str] = (),
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Scored:
    """Score a shard of a source and write the scores.

    Args:
        binding: the columns that the scorer reads.
        keep: columns of the source to copy to the output.
        advance: called with the number of rows of each part that is done.

    Raises:
        UsageError: the output exists, or is that of another run.
        ScoringFailed: input or output cannot be read or written.
    """
    start, stop = shard_of(source.rows, *shard)
    keep = list(dict.fromkeys(keep))
    if taken := [name for name in keep if name in (*scorer.schema.names, ERROR)]:
        raise UsageError(f"--keep {taken[0]}: the scores have a column of this name; rename yours")
    columns = binding.types
    kept = {name: columns.get(name) or source.columns[name] or pa.string() for name in keep}
    schema = schema_of(kept, scorer.schema)
    starts = list(range(start, stop, scorer.part_rows))
    files = PartFiles(out, {
        "input": source.identity(),
        "shard": list(shard),
        "columns": {"kind": binding.kind, **binding.columns},
        "keep": keep,
        "versions": {"weir": version("weir"), "pyarrow": pa.__version__},
        **scorer.identity,
        # Last: an error names the first difference, and this one follows from others.
        "part_rows": scorer.part_rows,
    }, schema, starts)  # fmt: skip
    with files.open(resume=resume) as is_complete:
        if is_complete:
            advance(stop - start)
            return Scored(stop - start, stop - start, files.errors())
        done = {at for at in starts if files.has(at)}
        resumed = sum(min(scorer.part_rows, stop - at) for at in done)
        advance(resumed)
        wanted = {**columns, **{name: None for name in keep if name not in columns}}
        gaps = _gaps(starts, done, stop)
        missing = (
            part
            for first, end in gaps
            for part in in_parts(source.read(wanted, first, end), scorer.part_rows)
        )
        _score_parts(missing, _Run(scorer, files, keep, advance))
        files.finish()
    return Scored(stop - start, resumed, files.errors())


def _score_parts(parts: Iterable[Part], run: "_Run") -> None:
    """Score parts and write each; an exception ends the threads and leaves what is written."""
    parallel = run.scorer.parallel
    with _quick_switches(), ThreadPoolExecutor(parallel, "weir-score") as pool:
        running: deque[_Running] = deque()
        try:
            for part in parts:
                prepared = run.scorer.prepare(part)
                futures = [pool.submit(batch.score) for batch in prepared.batches]
                running.append(_Running(prepared, futures))
                if _is_full(running, parallel):
                    run.write(running.popleft())
            while running:
                run.write(running.popleft())
        except BaseException:
            run.scorer.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True, slots=True)
class _Running:
    """A part whose batches are being scored."""

    prepared: PreparedPart
    futures: Sequence[Future[Scores]]


def _is_full(running: Sequence[_Running], parallel: int) -> bool:
    """Whether enough batches wait to keep every thread at work while a part is written."""
    batches = sum(len(each.futures) for each in running)
    return len(running) >= _PARTS_IN_MEMORY and batches >= 2 * parallel


@dataclass(frozen=True, slots=True)
class _Run:
    """What the parts of a run are written with."""

    scorer: Scorer
    files: PartFiles
    keep: Sequence[str]
    advance: Callable[[int], None]

    def write(self, running: _Running) -> None:
        """Wait for a part and write its scores."""
        part = running.prepared.part
        scores = [future.result() for future in running.futures]
        table = assemble(running.prepared, scores, self.scorer.schema, self.keep)
        self.files.write(part.start, table)
        self.advance(part.table.num_rows)


def _gaps(starts: Sequence[int], done: set[int], stop: int) -> Iterator[tuple[int, int]]:
    """The rows of each run of parts that are not written yet: the first, and that after the last.

    Args:
        starts: the first row of each part.
        stop: the row after the last part.
    """
    gap: int | None = None
    for at in starts:
        if at in done and gap is not None:
            yield gap, at
            gap = None
        elif at not in done and gap is None:
            gap = at
    if gap is not None:
        yield gap, stop


@contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
