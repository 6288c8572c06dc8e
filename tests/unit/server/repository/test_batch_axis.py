import logging
from collections.abc import Mapping

import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers import onnx_models
from weir.server.errors import InvalidRequest
from weir.server.repository import batch_axis
from weir.server.runtime.session import Session


def is_proved(graph: bytes, *, is_configured: bool = False, max_rows: int = 32) -> bool:
    session = Session(graph, provider="cpu", threads=1)
    return batch_axis.is_proved(
        "plain",
        graph,
        session,
        session.inputs,
        session.outputs,
        is_configured=is_configured,
        max_rows=max_rows,
    )


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
        assert is_proved(graph)

    assert caplog.messages == ["batch axis proved model=plain"]


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        pytest.param(
            onnx_models.detector(), "shapes depend on values, by operators 'NonZero'", id="form"
        ),
        pytest.param(
            onnx_models.scattered(), "shapes depend on values, by operators 'NonZero'", id="inside"
        ),
        pytest.param(
            onnx_models.softmax_of_batch(),
            "a row of output 'y' depends on the other rows of its batch",
            id="mixed rows",
        ),
        pytest.param(
            onnx_models.first_rows(1), "output 'y': expected 2 rows, got 1", id="lost rows"
        ),
        pytest.param(
            onnx_models.at_most(1), "rows that run alone do not run together", id="refused together"
        ),
        pytest.param(
            onnx_models.echo(TensorProto.FLOAT, ("batch", 1 << 25)),
            "the graph runs on no two rows that could be made up for it",
            id="too large to try",
        ),
    ],
)
def test_other_graph_is_not_batched_and_the_log_says_why(
    graph: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert not is_proved(graph)

    assert caplog.messages == [f"model is not batched model=plain reason={reason}"]
    assert caplog.records[0].levelno == logging.WARNING


def test_config_may_have_shapes_out_of_values_inside_only() -> None:
    assert is_proved(onnx_models.scattered(), is_configured=True)
    assert not is_proved(onnx_models.detector(), is_configured=True)
    # One row a row for every value that is tried, and not for all.
    assert not is_proved(onnx_models.doubled_above(1e6), is_configured=True)


def test_config_does_not_stand_for_the_run() -> None:
    assert not is_proved(onnx_models.softmax_of_batch(), is_configured=True)


def test_no_batch_is_larger_than_batches_may_be() -> None:
    assert is_proved(onnx_models.at_most(2), max_rows=2)
    assert not is_proved(onnx_models.at_most(2), max_rows=3)


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
def test_last_digits_may_differ(share: float, *, expected: bool) -> None:
    graph = onnx_models.echo()
    specs = Session(graph, provider="cpu", threads=1)

    actual = batch_axis.is_proved(
        "plain",
        graph,
        Rounding(share),  # type: ignore[arg-type]
        specs.inputs,
        specs.outputs,
        is_configured=False,
        max_rows=8,
    )

    assert actual is expected


class Refusing:
    """A session that refuses everything."""

    provider = "cpu"

    def run(self, inputs: object) -> dict[str, np.ndarray]:
        raise InvalidRequest("no")


def test_graph_that_runs_on_nothing_is_not_batched(caplog: pytest.LogCaptureFixture) -> None:
    graph = onnx_models.echo(TensorProto.FLOAT, ("batch", "time"))
    specs = Session(graph, provider="cpu", threads=1)

    assert not batch_axis.is_proved(
        "plain",
        graph,
        Refusing(),  # type: ignore[arg-type]
        specs.inputs,
        specs.outputs,
        is_configured=False,
        max_rows=8,
    )

    assert "runs on no two rows" in caplog.text
