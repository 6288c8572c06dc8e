"""Runs of fake models: order, threads, failures and resumption."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weir.client.errors import ResourceExhausted, UsageError
from weir.score import remote_model, scoring
from weir.score.batching import cut_by_length, score_rows
from weir.score.rows import Batch, Part, PreparedPart, Scores, one_array, score_table
from weir.score.source import Source, open_source
from weir.server.scheduling.batching import BatchPolicy

ROWS = 1000


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
    return scoring.score(scorer, source, out, columns={"n": None}, resume=resume)


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
    lengths = [5, 1, 9, 1, 5, 200, 9]

    batches = cut_by_length(
        list(enumerate(lengths)), lambda length: length, BatchPolicy(max_rows=3, max_tokens=30)
    )

    assert [chosen for _, chosen in batches] == [[1, 1, 5], [5, 9, 9], [200]]
    assert [positions for positions, _ in batches] == [[1, 3, 0], [4, 2, 6], [5]]


def test_row_that_fails_harms_no_other() -> None:
    def double(rows: slice) -> Mapping[str, pa.Array]:
        values = [3, 0, 5][rows]
        return {"inverse": pa.array([60 // value for value in values])}

    scores = score_rows([7, 8, 9], (ZeroDivisionError,), double)

    assert (scores.positions, scores.columns["inverse"].to_pylist()) == ([7, 9], [20, 12])
    assert list(scores.errors) == [8]


def test_full_queue_delays_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    answers: Sequence[float | None] = [0.5, None, 0.0]
    left = list(answers)

    def call() -> str:
        if left:
            raise ResourceExhausted("full", retry_after_s=left.pop(0))
        return "done"

    assert remote_model._patiently(call) == "done"
    assert waited == [0.5, 0.05, 0.05]
