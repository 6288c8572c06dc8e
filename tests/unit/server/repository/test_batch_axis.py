import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers import onnx_models
from weir.server.errors import InvalidRequest
from weir.server.repository import batch_axis, triton
from weir.server.repository.batch_axis import BatchAxis
from weir.server.runtime.session import Session
from weir.server.scheduling.batching import Basis, BatchDecision


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
        batch_axis.prove(
            graph,
            session or loaded,
            loaded.inputs,
            loaded.outputs,
            is_configured=is_configured,
            max_rows=max_rows,
        )
    except batch_axis.UnprovedError as error:
        return str(error)
    return ""


def resolved(
    graph: bytes, *, setting: bool | None = None, config: str | None = None, max_rows: int = 32
) -> BatchAxis:
    """The batch axis of a plain model, which is logged."""
    axis = batch_axis.resolve(
        graph,
        Session(graph, provider="cpu", threads=1),
        None,
        None if config is None else triton.parse(config.encode(), "plain"),
        setting=setting,
        max_rows=max_rows,
    )
    batch_axis.log("plain", axis.decision)
    return axis


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(onnx_models.affine(), id="affine"),
        pytest.param(onnx_models.arithmetic(), id="two inputs"),
        pytest.param(onnx_models.fingerprint(1), id="a free axis"),
        pytest.param(onnx_models.gather(4), id="indices of a small table"),
        pytest.param(onnx_models.refuses_zero(), id="zeros are refused"),
        pytest.param(onnx_models.nan_passthrough(), id="one number a row"),
        pytest.param(onnx_models.colours(), id="pictures"),
        *(
            pytest.param(onnx_models.echo(datatype), id=TensorProto.DataType.Name(datatype))
            for datatype in (
                TensorProto.BOOL,
                TensorProto.UINT8,
                TensorProto.INT64,
                TensorProto.FLOAT16,
                TensorProto.DOUBLE,
                TensorProto.BFLOAT16,
                TensorProto.STRING,
            )
        ),
    ],
)
def test_honest_graph_is_proved(graph: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        axis = resolved(graph)

    assert axis.decision.is_batched
    assert axis.decision.basis is Basis.PROOF
    assert not axis.only_proved
    assert caplog.messages == ["batch axis proved model=plain"]


@pytest.mark.parametrize(
    ("graph", "basis", "expected"),
    [
        pytest.param(
            onnx_models.detector(),
            Basis.FORM,
            "shapes depend on values, by operators 'NonZero'",
            id="form",
        ),
        pytest.param(
            onnx_models.scattered(),
            Basis.FORM,
            "shapes depend on values, by operators 'NonZero'",
            id="inside",
        ),
        pytest.param(
            onnx_models.softmax_of_batch(),
            Basis.RUN,
            "a row of output 'y' depends on the other rows of its batch",
            id="mixed rows",
        ),
        pytest.param(
            onnx_models.first_rows(1),
            Basis.RUN,
            "output 'y': expected 2 rows, got 1",
            id="lost rows",
        ),
        pytest.param(
            onnx_models.at_most(1),
            Basis.RUN,
            "rows that run alone do not run together",
            id="refused together",
        ),
        pytest.param(
            onnx_models.echo(TensorProto.FLOAT, ("batch", 1 << 25)),
            Basis.RUN,
            "the graph runs on no two rows that could be made up for it",
            id="too large to try",
        ),
    ],
)
def test_other_graph_is_not_batched_and_the_log_says_why(
    graph: bytes, basis: Basis, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        axis = resolved(graph)

    assert axis.decision == BatchDecision(is_batched=False, basis=basis, reason=expected)
    assert axis.tensors.batch_axis is None
    assert caplog.messages == [f"model is not batched model=plain reason={expected}"]
    assert caplog.records[0].levelno == logging.WARNING


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

    assert "runs on no two rows" in reason(graph, session=Refusing())
