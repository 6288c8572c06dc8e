"""The unmodified `tritonclient`, with what several tests need of it."""

import queue
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.harness import ANSWER_S, DTYPE_NAMES

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False, False, True]]),
    "UINT8": np.array([[0, 1, 128, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 2**15, 2**16 - 1]], np.uint16),
    "UINT32": np.array([[0, 1, 2**31, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 1, 2**63, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, -1, 0, 127]], np.int8),
    "INT16": np.array([[-(2**15), -1, 0, 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), -1, 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), -1, 0, 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -2.0, 65504.0, np.inf]], np.float16),
    "FP32": np.array([[0.1, -2.0, 3.4e38, np.inf]], np.float32),
    "FP64": np.array([[0.1, -2.0, 1.7e308, np.inf]], np.float64),
    "BF16": np.array([[0.5, -2.0, 1.7e38, np.inf]], ml_dtypes.bfloat16),
    "BYTES": np.array([["weir", "", "größer", "x" * 1000]], object),
}
"""A row of four values of each datatype, with its extremes."""


def as_input(name: str, values: Any, datatype: str | None = None) -> triton.InferInput:
    """An input with these values."""
    tensor = triton.InferInput(name, values.shape, datatype or DTYPE_NAMES[values.dtype.name])
    tensor.set_data_from_numpy(values)
    return tensor


def error_of(call: Callable[[], Any]) -> list[str]:
    """The status and the message that a call ends with; an answer instead is a failed test."""
    try:
        answer = call()
    except InferenceServerException as error:
        return error_fields(error)
    raise AssertionError(f"expected an error, got {answer}")


def error_fields(error: InferenceServerException) -> list[str]:
    """Status and message of an error."""
    return [error.status() or "", error.message()]


class Answers:
    """The answers that come by callback, in their order; pass it as the callback."""

    def __init__(self) -> None:
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        """Take an answer."""
        self._answers.put((result, error))

    def next(self) -> tuple[Any, Any]:
        """Wait for the next answer: its result, or None and its error."""
        return self._answers.get(timeout=ANSWER_S)

    @property
    def is_empty(self) -> bool:
        """Whether every answer was looked at."""
        return self._answers.empty()
