"""Scoring: read → prepare → score → write, part by part.

Threads: the caller's reads, prepares and writes; a pool scores batches. A few parts are in memory
at a time, whatever the length of the input. Parts that are written already are not scored again.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from weir.score.part_files import PartFiles
from weir.score.rows import ERROR, PreparedPart, Scorer, Scores, assemble
from weir.score.source import Source, in_parts

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
    columns: Mapping[str, pa.DataType | None],
    keep: Sequence[str] = (),
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Scored:
    """Score a shard of a source and write the scores.

    Args:
        columns: that the scorer reads, with their types.
        keep: columns of the source to copy to the output.
        advance: called with the number of rows of each part that is done.

    Raises:
        UsageError: the output exists, or is that of another run.
        ScoringFailed: input or output cannot be read or written.
    """
    start, stop = shard_of(source.rows, *shard)
    kept = {name: columns.get(name) or source.columns[name] or pa.string() for name in keep}
    schema = pa.schema(
        [
            *kept.items(),
            *zip(scorer.schema.names, scorer.schema.types, strict=True),
            (ERROR, pa.string()),
        ]
    )
    files = PartFiles(out, {
        "input": source.identity(),
        "shard": list(shard),
        "columns": sorted(columns),
        "keep": list(keep),
        "part_rows": scorer.part_rows,
        **scorer.identity,
    })  # fmt: skip
    files.open(resume=resume)
    starts = list(range(start, stop, scorer.part_rows))
    done = [at for at in starts if files.has(at)]
    resumed = sum(min(scorer.part_rows, stop - at) for at in done)
    advance(resumed)
    run = _Run(scorer, files, keep, advance)
    wanted = {**columns, **{name: None for name in keep if name not in columns}}
    with _quick_switches(), ThreadPoolExecutor(scorer.parallel, "weir-score") as pool:
        running: deque[_Running] = deque()
        try:
            for first, end in _gaps(starts, set(done), stop):
                for part in in_parts(source.read(wanted, first, end), scorer.part_rows):
                    prepared = scorer.prepare(part)
                    futures = [pool.submit(batch.score) for batch in prepared.batches]
                    running.append(_Running(prepared, futures))
                    if _is_full(running, scorer.parallel):
                        run.write(running.popleft())
            while running:
                run.write(running.popleft())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    errors = files.finish(starts, schema)
    return Scored(stop - start, resumed, errors)


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
