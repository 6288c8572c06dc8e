"""The unmodified `tritonclient`, with what several tests need of it."""

import queue
from collections.abc import Callable
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.harness import ANSWER_S, DTYPE_NAMES


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
