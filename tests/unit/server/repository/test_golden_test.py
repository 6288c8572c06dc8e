import numpy as np
import pytest

from weir.bundle.golden import Golden
from weir.bundle.sequences import ValueRange
from weir.server.errors import ModelLoadError
from weir.server.repository.golden_test import check_inputs
from weir.server.runtime.collate import LengthInput
from weir.server.runtime.sequence_rules import Lengths, SequenceRules
from weir.server.runtime.signature import Signature, TensorSpec

TOKENS = np.array([[1, 2], [3, 0]])
LENGTHS = np.array([2, 1])

OUTPUT = TensorSpec("y", "FP32", ("batch", 3))
SEQUENCES = Signature(
    [TensorSpec("tokens", "INT64", ("batch", "time")), TensorSpec("lengths", "INT64", ("batch",))],
    [OUTPUT],
    batch_axis="batch",
    max_rows=1,
    maxima={"time": 4},
    optional=["lengths"],
    length_axis="time",
)
RULES = SequenceRules(
    {"time": 4},
    {"tokens": ValueRange(maximum=7)},
    (Lengths(LengthInput("lengths"), "time", "tokens", 1, np.dtype(np.int64)),),
)


def test_any_number_of_rows_may_be_recorded() -> None:
    check_inputs(Golden({"tokens": TOKENS, "lengths": LENGTHS}, {}), SEQUENCES, RULES)


def test_nothing_recorded_is_nothing_to_check() -> None:
    check_inputs(None, SEQUENCES, RULES)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"expected \['lengths', 'tokens'\], got \[\]"),
        ({"tokens": TOKENS}, r"got \['tokens'\]"),
        ({"tokens": TOKENS, "lengths": LENGTHS, "x": LENGTHS}, r"got \['lengths', 'tokens', 'x'\]"),
        ({"tokens": TOKENS.astype(np.int32), "lengths": LENGTHS}, "expected INT64, got 'int32'"),
        ({"tokens": TOKENS.astype(bool), "lengths": LENGTHS}, "expected INT64, got 'bool'"),
        ({"tokens": TOKENS[0], "lengths": LENGTHS}, "'tokens': expected 2 axes"),
        ({"tokens": np.array(1), "lengths": LENGTHS}, "'tokens': expected 2 axes"),
        ({"tokens": TOKENS, "lengths": np.array(1)}, "'lengths': expected 1 axes"),
        ({"tokens": np.ones((2, 5), np.int64), "lengths": LENGTHS}, "expected 1 to 4, got 5"),
        ({"tokens": TOKENS[:, :0], "lengths": LENGTHS}, "expected 1 to 4, got 0"),
        (
            {"tokens": TOKENS, "lengths": LENGTHS[:1]},
            "expected the same number of rows in every input",
        ),
        ({"tokens": TOKENS[:0], "lengths": LENGTHS[:0]}, "expected the same number of rows"),
        ({"tokens": TOKENS, "lengths": LENGTHS - 1}, "expected lengths from 1 to 2, got 0"),
        ({"tokens": TOKENS, "lengths": LENGTHS + 1}, "expected lengths from 1 to 2, got 3"),
        ({"tokens": TOKENS + 5, "lengths": LENGTHS}, "expected values from 0 to 7, got 8"),
    ],
)
def test_inputs_that_no_request_may_hold_are_refused(
    inputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ModelLoadError, match=f"^golden inputs: .*{message}"):
        check_inputs(Golden(inputs, {}), SEQUENCES, RULES)


def test_inputs_without_rows_may_have_any_shape_that_fits() -> None:
    signature = Signature(
        [TensorSpec("x", "FP32", ("time", 2))], [OUTPUT], batch_axis=None, max_rows=1
    )

    check_inputs(
        Golden({"x": np.ones((9, 2), np.float32)}, {}), signature, SequenceRules({}, {}, ())
    )
    with pytest.raises(ModelLoadError, match="axis 1: expected 2, got 3"):
        check_inputs(
            Golden({"x": np.ones((9, 3), np.float32)}, {}), signature, SequenceRules({}, {}, ())
        )
