import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers import onnx_models, profiled_graphs
from weir.server.errors import InvalidRequest
from weir.server.repository import batch_axis_proof
from weir.server.repository.batch_axis_proof import UnprovedError
from weir.server.runtime.session import Session


def reason(
    graph: bytes,
    *,
    is_configured: bool = False,
    max_rows: int = 32,
    session: Any = None,
) -> str:
    """Why the first axis of a graph is not proved to be the batch axis; empty if it is."""
    loaded = Session(graph, provider="cpu", threads=1)
    try:
        batch_axis_proof.prove(
            graph,
            session or loaded,
            loaded.inputs,
            loaded.outputs,
            is_configured=is_configured,
            max_rows=max_rows,
        )
    except batch_axis_proof.UnprovedError as error:
        return str(error)
    return ""


def test_config_may_have_shapes_out_of_values_inside_only() -> None:
    assert not reason(onnx_models.scattered(), is_configured=True)
    assert "of outputs 'boxes'" in reason(onnx_models.detector(), is_configured=True)
    # One row a row for every value that is tried, and not for all.
    assert "of outputs 'y'" in reason(onnx_models.doubled_above(1e6), is_configured=True)


def test_config_does_not_stand_for_the_run() -> None:
    assert "depends on the other rows" in reason(onnx_models.softmax_of_batch(), is_configured=True)


def test_largest_batch_is_tried_and_none_larger() -> None:
    assert not reason(onnx_models.at_most(2), max_rows=2)
    assert reason(onnx_models.at_most(2), max_rows=3)
    assert not reason(onnx_models.at_most(20), max_rows=20)
    assert "run together" in reason(onnx_models.at_most(20), max_rows=21)
    assert "expected 21 rows, got 20" in reason(onnx_models.first_rows(20), max_rows=21)


def prove_slowly(graph: bytes, run_s: float, session: Any = None) -> None:
    """Prove an axis with a clock by which a run of two rows takes so long."""
    loaded = Session(graph, provider="cpu", threads=1)
    seconds = itertools.count(0, run_s)
    batch_axis_proof.prove(
        graph,
        session or loaded,
        loaded.inputs,
        loaded.outputs,
        is_configured=False,
        max_rows=32,
        clock=lambda: float(next(seconds)),
    )


def test_largest_batch_takes_a_few_seconds_at_most() -> None:
    # Half a second a row: the largest batch has ten.
    prove_slowly(onnx_models.at_most(10), 1)
    with pytest.raises(
        batch_axis_proof.UnprovedError, match="rows that run alone do not run together"
    ):
        prove_slowly(onnx_models.at_most(9), 1)


def test_slow_graph_is_not_tried() -> None:
    with pytest.raises(
        batch_axis_proof.UnprovedError, match=r"takes too long, 1\.5 s a row; batch_axis = true"
    ):
        prove_slowly(onnx_models.echo(), 3)


class Counting:
    """A session that counts the rows that it runs, and those of its largest batch."""

    provider = "cpu"

    def __init__(self, graph: bytes) -> None:
        self._session = Session(graph, provider="cpu", threads=1)
        self.rows = self.largest = 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(next(iter(inputs.values())))
        self.rows += rows
        self.largest = max(self.largest, rows)
        return self._session.run(dict(inputs))


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(onnx_models.echo(TensorProto.FLOAT, ("batch", 4)), id="floats"),
        pytest.param(onnx_models.echo(TensorProto.INT32, ("batch", 4)), id="integers"),
        pytest.param(onnx_models.echo(TensorProto.FLOAT, ("batch", "time")), id="a free axis"),
    ],
)
def test_fewer_rows_are_run_if_a_row_takes_long(graph: bytes) -> None:
    quick, slow = Counting(graph), Counting(graph)

    prove_slowly(graph, 0.02, quick)
    prove_slowly(graph, 0.2, slow)

    assert (quick.largest, slow.largest) == (32, 32)
    assert slow.rows - slow.largest < 40 < quick.rows - quick.largest <= 270


def test_mixed_rows_are_found_if_a_row_takes_long() -> None:
    with pytest.raises(batch_axis_proof.UnprovedError, match="depends on the other rows"):
        prove_slowly(onnx_models.softmax_of_batch(), 0.2)


class Rounding:
    """A session of `y = x` whose batches differ from rows alone, by a share of the greatest."""

    provider = "cpu"

    def __init__(self, share: float) -> None:
        self._share = share

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        if len(x) > 1:
            x = x + self._share * np.abs(x).max(axis=1, keepdims=True)
        return {"y": x.astype(np.float32)}


@pytest.mark.parametrize(("share", "expected"), [(1e-5, True), (1e-2, False)])
def test_last_digits_may_differ_between_batch_and_row_alone(
    share: float, *, expected: bool
) -> None:
    assert (reason(onnx_models.echo(), session=Rounding(share)) == "") is expected


class Jittering:
    """A session of `y = x` with other last digits in each run, as atomic additions give."""

    provider = "cuda"

    def __init__(self, share: float) -> None:
        self._share = share
        self._generator = np.random.default_rng(0)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        jitter = self._generator.uniform(-self._share, self._share, x.shape)
        return {"y": (x * (1 + jitter)).astype(np.float32)}


@pytest.mark.parametrize(("share", "expected"), [(1e-6, True), (1e-1, False)])
def test_last_digits_may_differ_between_runs_if_they_always_do(
    share: float, *, expected: bool
) -> None:
    assert (reason(onnx_models.echo(), session=Jittering(share)) == "") is expected


class Refusing:
    """A session that refuses everything."""

    provider = "cpu"

    def run(self, inputs: object) -> dict[str, np.ndarray]:
        raise InvalidRequest("no")


def test_graph_that_runs_on_nothing_is_not_batched() -> None:
    graph = onnx_models.echo(TensorProto.FLOAT, ("batch", "time"))

    assert "runs on no two of the generated rows" in reason(graph, session=Refusing())


def test_request_that_a_loop_keeps_from_its_end_is_stopped() -> None:
    session = Session(profiled_graphs.endless(), provider="cpu", threads=1)

    with pytest.raises(UnprovedError, match=r"^a run: expected to end within 0\.1 s$"):
        batch_axis_proof.runnable_rows(session, session.inputs, is_batched=False, most_run_s=0.1)
