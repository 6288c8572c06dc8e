"""Runs of fake models: order, threads, failures and resumption."""

import errno
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from weir.client.client import Client
from weir.client.errors import ResourceExhausted, UsageError
from weir.client.results import Answer
from weir.evaluate.model_description import ModelDescription
from weir.score import remote_model, scoring
from weir.score.batching import Failures, cut_by_length, longest_first, score_rows, tasks_of
from weir.score.binding import Binding
from weir.score.errors import ScoringFailed
from weir.score.graph_scorer import BlockBatch, GraphRun
from weir.score.outputs import tensor_column
from weir.score.remote_model import RemoteModel, RemoteScorer
from weir.score.rows import Batch, Part, PreparedPart, Scores, one_array, score_table
from weir.score.sources.base import Source
from weir.score.sources.form import open_source
from weir.server.runtime.signature import TensorSpec
from weir.server.scheduling.batching import BatchPolicy

Rows = NDArray[Any]

ROWS = 1000
BINDING = Binding("tensors", {"n": "n"}, {"n": None})


class Doubling:
    """Doubles `n`, a batch a part; `before` is called with the rows of each batch."""

    def __init__(
        self, part_rows: int = 64, parallel: int = 2, before: Callable[[list[int]], object] = len
    ) -> None:
        self.schema = pa.schema([("twice", pa.int64())])
        self.identity: Mapping[str, object] = {"model": "doubling"}
        self.part_rows = part_rows
        self.parallel = parallel
        self.before = before
        self.is_stopped = False

    def stop(self) -> None:
        self.is_stopped = True

    def prepare(self, part: Part) -> PreparedPart:
        values = one_array(part, "n").to_pylist()
        batches: list[Batch] = [_Doubled(values, self.before)] if values else []
        return PreparedPart(part, batches, part.errors)


class _Doubled:
    def __init__(self, values: list[int], before: Callable[[list[int]], object]) -> None:
        self.values, self.before = values, before

    def score(self) -> Scores:
        self.before(self.values)
        # Backwards: the rows of a batch have no order.
        positions = list(range(len(self.values)))[::-1]
        return Scores(
            positions, {"twice": pa.array([2 * self.values[at] for at in positions], pa.int64())}
        )


@pytest.fixture
def source(tmp_path: Path) -> Source:
    np.savez(tmp_path / "n.npz", n=np.arange(ROWS))
    return open_source(tmp_path / "n.npz")


def run(scorer: Doubling, source: Source, out: Path, *, resume: bool = False) -> scoring.Scored:
    return scoring.score(scorer, source, out, binding=BINDING, resume=resume)


@pytest.mark.parametrize("part_rows", [1, 7, 64, ROWS, 2 * ROWS])
def test_rows_come_in_their_order(part_rows: int, source: Source, tmp_path: Path) -> None:
    scored = run(Doubling(part_rows), source, tmp_path / "o.parquet")

    assert scored == scoring.Scored(rows=ROWS, resumed=0, errors=0)
    assert pq.read_table(tmp_path / "o.parquet")["twice"].to_pylist() == list(range(0, 2 * ROWS, 2))


def test_a_table_is_scored_in_its_order_with_the_kept_columns() -> None:
    table = pa.table({"n": [3, 1, 2], "id": ["a", "b", None]})

    scored = score_table(Doubling(), table, ["id"])

    assert scored.to_pydict() == {"id": ["a", "b", None], "twice": [6, 2, 4], "error": [None] * 3}


def test_parts_of_one_batch_keep_every_thread_at_work(source: Source, tmp_path: Path) -> None:
    together = threading.Barrier(8)

    # 16 parts of one batch each.
    scorer = Doubling(ROWS // 16 + 1, parallel=8, before=lambda _: together.wait(60))

    assert run(scorer, source, tmp_path / "o.parquet").errors == 0


def test_bug_of_a_model_ends_the_run_which_can_go_on(source: Source, tmp_path: Path) -> None:
    def break_at_700(values: list[int]) -> None:
        if 700 in values:
            raise RuntimeError("a bug")

    out = tmp_path / "o.parquet"
    seen: list[int] = []
    with pytest.raises(RuntimeError, match="a bug"):
        run(Doubling(100, before=break_at_700), source, out)

    scored = run(Doubling(100, before=seen.extend), source, out, resume=True)

    assert scored.resumed == 700 and seen == list(range(700, ROWS))
    assert pq.read_table(out)["twice"].to_pylist() == list(range(0, 2 * ROWS, 2))


def test_missing_part_in_the_middle_is_scored_again(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    seen: list[int] = []
    with pytest.raises(RuntimeError):
        run(Doubling(100, before=_fail_at(900)), source, out)
    (out.with_name("o.parquet.parts") / f"{300:012}.arrow").unlink()

    run(Doubling(100, before=seen.extend), source, out, resume=True)

    assert sorted(seen) == [*range(300, 400), *range(900, ROWS)]
    assert pq.read_table(out)["twice"].to_pylist() == list(range(0, 2 * ROWS, 2))


def _fail_at(row: int) -> Callable[[list[int]], None]:
    def fail(values: list[int]) -> None:
        if row in values:
            raise RuntimeError

    return fail


def test_other_rows_a_part_are_another_run(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    with pytest.raises(RuntimeError):
        run(Doubling(100, before=_fail_at(0)), source, out)

    with pytest.raises(UsageError, match="another part_rows: expected 100, got 50"):
        run(Doubling(50), source, out, resume=True)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_and_whole(count: int) -> None:
    shards = [scoring.shard_of(10, number, count) for number in range(1, count + 1)]

    assert shards[0][0] == 0 and shards[-1][1] == 10
    assert all(one[1] == other[0] for one, other in pairwise(shards))
    assert max(b - a for a, b in shards) - min(b - a for a, b in shards) <= 1


def test_rows_of_similar_lengths_share_batches_within_the_policy() -> None:
    lengths = np.array([5, 1, 9, 1, 5, 200, 9])

    order = longest_first(lengths)
    batches = [*cut_by_length(lengths[order], BatchPolicy(max_rows=3, max_tokens=30))]

    assert [lengths[order][rows].tolist() for rows in batches] == [[200], [9, 9, 5], [5, 1, 1]]
    assert [order[rows].tolist() for rows in batches] == [[5], [2, 6, 0], [4, 1, 3]]


@given(
    st.lists(st.integers(0, 60), max_size=60),
    st.integers(1, 5),
    st.none() | st.integers(1, 90),
    st.integers(1, 6),
)
def test_no_number_of_threads_changes_a_batch(
    lengths: list[int], max_rows: int, max_tokens: int | None, most: int
) -> None:
    policy = BatchPolicy(max_rows=max_rows, max_tokens=max_tokens)
    in_order = np.array(sorted(lengths, reverse=True), np.intp)
    batches = [*cut_by_length(in_order, policy)]

    for threads in range(1, 5):
        tasks = tasks_of(batches, most, threads)
        again = [
            slice(task.start + batch.start, task.start + batch.stop)
            for task in tasks
            for batch in cut_by_length(in_order[task], policy)
        ]
        assert again == batches
        assert len(tasks) >= min(threads, len(batches))


def test_row_that_fails_harms_no_other() -> None:
    def double(rows: slice) -> Mapping[str, pa.Array]:
        values = [3, 0, 5][rows]
        return {"inverse": pa.array([60 // value for value in values])}

    scores = score_rows([7, 8, 9], Failures(refused=(ZeroDivisionError,)), double)

    assert (scores.positions, scores.columns["inverse"].to_pylist()) == ([7, 9], [20, 12])
    assert list(scores.errors) == [8]


def test_resumed_run_keeps_the_bytes_of_wide_columns(tmp_path: Path) -> None:
    """The lines are read in groups that begin where the run begins."""
    rows = [{"n": number, "text": f"{number:3000}"} for number in range(4000)]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(tmp_path / "n.jsonl")
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"

    def break_at_2500(values: list[int]) -> None:
        if 2500 in values:
            raise RuntimeError("a bug")

    binding = Binding("tensors", {"n": "n"}, {"n": pa.int64()})
    keep_text = partial(scoring.score, source=source, binding=binding, keep=["text"])
    keep_text(Doubling(1100), out=whole)
    with pytest.raises(RuntimeError, match="a bug"):
        keep_text(Doubling(1100, before=break_at_2500), out=resumed)

    assert keep_text(Doubling(1100), out=resumed, resume=True).resumed >= 1100
    assert resumed.read_bytes() == whole.read_bytes()


def test_ctrl_c_on_a_full_disk_is_ctrl_c(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(values: list[int]) -> None:
        raise KeyboardInterrupt

    def close(writer: pq.ParquetWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "close", close)

    with pytest.raises(KeyboardInterrupt):
        run(Doubling(before=stop), source, tmp_path / "o.parquet")


def test_batch_that_fails_changes_no_other_batch() -> None:
    seen: list[list[int]] = []

    def run(rows: slice) -> Mapping[str, pa.Array]:
        seen.append(values := [*range(10)][rows])
        if 4 in values:
            raise ZeroDivisionError
        return {"same": pa.array(values)}

    batches = [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    scores = score_rows(range(10), Failures(refused=(ZeroDivisionError,)), run, batches)

    assert scores.columns["same"].to_pylist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert list(scores.errors) == [4]
    assert {(0, 1, 2), (6, 7, 8), (9,)} <= {*map(tuple, seen)}


@pytest.mark.parametrize("kept", ["twice", "error"])
def test_column_that_the_scores_have_is_not_kept(kept: str, source: Source, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--keep {kept}: the scores have a column of this name"):
        scoring.score(Doubling(), source, tmp_path / "o.parquet", binding=BINDING, keep=[kept])

    assert not list(tmp_path.glob("o.*"))


def test_column_is_kept_once(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"

    scoring.score(Doubling(), source, out, binding=BINDING, keep=["n", "n"])

    assert pq.read_schema(out).names == ["n", "twice", "error"]


def test_complete_run_is_resumed_at_once(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    run(Doubling(), source, out)
    # As after a kill between the rename and the removal of the parts.
    out.with_name("o.parquet.parts").mkdir()

    scored = run(Doubling(before=_fail_at(0)), source, out, resume=True)

    assert scored == scoring.Scored(rows=ROWS, resumed=ROWS, errors=0)
    assert not out.with_name("o.parquet.parts").exists()
    with pytest.raises(UsageError, match="another part_rows: expected 64, got 50"):
        run(Doubling(50), source, out, resume=True)


def test_file_of_another_program_is_left_alone(source: Source, tmp_path: Path) -> None:
    (tmp_path / "o.parquet").write_bytes(b"mine")

    for resume in (False, True):
        with pytest.raises(UsageError, match="expected"):
            run(Doubling(), source, tmp_path / "o.parquet", resume=resume)

    assert (tmp_path / "o.parquet").read_bytes() == b"mine"


def test_two_processes_do_not_write_one_output(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"

    def again(values: list[int]) -> None:
        if 0 in values:
            run(Doubling(), source, out, resume=True)

    with pytest.raises(UsageError, match="another process writes"):
        run(Doubling(before=again), source, out)


def test_swapped_columns_are_another_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "n.npz", n=np.arange(ROWS), m=np.arange(ROWS))
    source, out = open_source(tmp_path / "n.npz"), tmp_path / "o.parquet"
    one, other = ({"a": "n", "b": "m"}, {"a": "m", "b": "n"})
    types = {"n": None, "m": None}
    with pytest.raises(RuntimeError):
        scoring.score(
            Doubling(before=_fail_at(500)), source, out, binding=Binding("tensors", one, types)
        )

    with pytest.raises(UsageError, match="another columns"):
        scoring.score(
            Doubling(), source, out, binding=Binding("tensors", other, types), resume=True
        )


def test_failure_of_every_row_ends_the_run() -> None:
    def fail(rows: slice) -> Mapping[str, pa.Array]:
        raise OSError(f"no device for {rows}")

    failures = Failures(refused=(ValueError,), failed=(OSError,))

    with pytest.raises(OSError, match="no device"):
        score_rows([1, 2], failures, fail)
    assert score_rows([1], failures, fail).errors == {1: "no device for slice(0, 1, None)"}


class Full:
    """A client whose server's queue is full for some calls."""

    def __init__(self, *pauses_s: float | None) -> None:
        self.pauses_s = list(pauses_s)

    def infer(self, *_: object, **__: object) -> Answer:
        if self.pauses_s:
            raise ResourceExhausted("full", retry_after_s=self.pauses_s.pop(0))
        return Answer("m", "1", "", {"y": np.array([2.0], np.float32)})


def remote(client: object) -> RemoteScorer:
    model = RemoteModel(
        cast("Client", client),
        "m",
        "1",
        "other",
        ModelDescription(),
        [TensorSpec("x", "FP32", (None,))],
        [TensorSpec("y", "FP32", (None,))],
        32,
    )
    binding = Binding("tensors", {"x": "x"}, {"x": None})
    return RemoteScorer(model, binding, (), parallel=1, width=1, folder=Path())


def test_full_queue_delays_a_call() -> None:
    scorer = remote(Full(0.0, 0.01))

    assert scorer.infer({})["y"].to_pylist() == [2.0]


def test_call_that_no_pause_helps_is_not_made_again() -> None:
    with pytest.raises(ResourceExhausted):
        remote(Full(None)).infer({})


def test_queue_that_stays_full_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_model, "_MAX_WAIT_S", -1.0)
    scorer = remote(Full(0.0))
    part = Part(0, pa.table({"x": pa.array([1.0], pa.float32())}))

    (batch,) = scorer.prepare(part).batches

    with pytest.raises(ScoringFailed, match="full"):
        batch.score()


def test_call_that_waits_for_a_full_queue_ends_with_the_run() -> None:
    scorer = remote(Full(3600.0))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(scorer.infer, {})

        scorer.stop()

        with pytest.raises(ScoringFailed, match="the run has ended"):
            waiting.result(60)


def test_batches_of_fixed_rows_may_have_outputs_of_other_sizes() -> None:
    """The size of an axis of an output may depend on values."""
    spec = TensorSpec("k", "INT64", ("batch", None))

    class Run:
        def outputs(self, batches: list[Mapping[str, Rows]]) -> list[Mapping[str, Rows]]:
            return [{"k": np.full((len(each["x"]), int(each["x"].max())), 7)} for each in batches]

    batch = BlockBatch(
        cast("GraphRun", Run()),
        [tensor_column(spec)],
        range(5),
        {"x": np.array([1, 2, 0, 3, 1])},
        batch_rows=2,
    )

    assert batch.score().columns["k"].to_pylist() == [[7] * size for size in (2, 2, 3, 3, 1)]
