import inspect
import logging
import re
from urllib.parse import quote

import grpc
import pytest

from tests.unit.server.conftest import FakeCall
from weir.server import errors
from weir.server.errors import Overloaded, RequestError, ServerError
from weir.server.transport.status import (
    CODE_OF,
    REASONS,
    Status,
    closed_code,
    closed_error,
    fail,
    guarded,
    status_of,
)

EXPECTED = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.ModelNotLoaded: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ResponseTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.MetadataTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ClientTooSlow: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
}
"""Written down once more, after the design's table."""

INTERNAL_TEXT = "/srv/models/secret.onnx"


def leaves(root: type[Exception]) -> list[type[Exception]]:
    """The server's own: a test may have made others."""
    children = [each for each in root.__subclasses__() if each.__module__.startswith("weir.server")]
    return [leaf for child in children for leaf in leaves(child)] if children else [root]


def tree() -> list[type[Exception]]:
    return [
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, Exception) and member.__module__ == errors.__name__
    ]


def test_every_leaf_of_the_tree_has_exactly_one_status() -> None:
    assert set(CODE_OF) == set(leaves(RequestError))


@pytest.mark.parametrize(
    ("error", "code"), EXPECTED.items(), ids=lambda each: str(each).split(".")[-1]
)
def test_failure_has_the_status_of_the_design(
    error: type[RequestError], code: grpc.StatusCode
) -> None:
    status = status_of(error("what was expected, what came"))

    assert (status.code, status.details) == (code, "what was expected, what came")


def test_every_failure_is_counted_under_a_reason_of_a_closed_set() -> None:
    assert set(REASONS) == {
        "overloaded",
        "invalid_request",
        "unknown_model",
        "unauthenticated",
        "permission_denied",
        "model_not_ready",
        "model_not_loaded",
        "draining",
        "out_of_memory",
        "response_too_large",
        "metadata_too_large",
        "client_too_slow",
        "deadline_exceeded",
        "cancelled",
        "unsupported",
        "internal",
    }
    assert status_of(Overloaded("full")).reason == "overloaded"
    assert status_of(errors.OutOfMemory("no")).reason == "out_of_memory"
    assert {status_of(error("no")).reason for error in leaves(RequestError)} < set(REASONS)


def test_only_overload_names_a_time_to_retry() -> None:
    assert dict(status_of(Overloaded("full")).trailers).keys() == {"grpc-retry-pushback-ms"}
    for error in set(leaves(RequestError)) - {Overloaded}:
        assert status_of(error("no")).trailers == ()


def test_every_error_is_in_the_tree_and_has_a_docstring() -> None:
    drawing = errors.__doc__ or ""

    for error in tree():
        assert re.search(rf"\b{error.__name__}\b", drawing)
        assert issubclass(error, ServerError)
        assert error.__doc__ and error.__doc__.endswith(".")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError(INTERNAL_TEXT), id="bug"),
        pytest.param(errors.ModelLoadError(INTERNAL_TEXT), id="expected, but not of requests"),
        pytest.param(RequestError(INTERNAL_TEXT), id="no leaf"),
        pytest.param(type("New", (errors.InvalidRequest,), {})(INTERNAL_TEXT), id="leaf of a leaf"),
        pytest.param(
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, INTERNAL_TEXT), id="odd constructor"
        ),
    ],
)
def test_any_other_error_is_internal_and_sends_only_its_id(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status = status_of(error)

    assert status.code is grpc.StatusCode.INTERNAL
    found = re.fullmatch(r"internal error ([0-9a-f]{12})", status.details)
    assert found and status.reason == "internal"
    assert INTERNAL_TEXT not in status.details
    assert status.trailers == ()
    assert f"error_id={found[1]}" in caplog.text
    assert INTERNAL_TEXT in caplog.text


def test_lack_of_memory_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    status = status_of(MemoryError())

    assert (status.code, status.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "out_of_memory")
    assert caplog.text == ""


def test_every_bug_has_an_id_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    details = {status_of(ValueError("bug")).details for _ in range(10)}

    assert len(details) == 10


def test_expected_failures_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for error in leaves(RequestError):
            status_of(error("no"))

    assert caplog.text == ""


def test_unknown_is_never_a_status() -> None:
    assert grpc.StatusCode.UNKNOWN not in CODE_OF.values()
    assert Status(grpc.StatusCode.OK, "").trailers == ()


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600"], ids=ascii)
def test_details_fit_a_header_however_much_there_is_to_say(letter: str) -> None:
    """Of a model with thousands of versions, say: a client refuses the answer, whatever it says."""
    status = status_of(errors.UnknownModel("what matters " + letter * 50_000))

    assert status.details.startswith("what matters " + letter) and status.details.endswith("...")
    assert len(quote(status.details)) < 8192
    assert status_of(errors.UnknownModel(1000 * "x")).details == 1000 * "x"


@pytest.mark.parametrize(
    ("open_s", "left_s", "code"),
    [
        pytest.param(1.0, None, grpc.StatusCode.CANCELLED, id="no deadline"),
        pytest.param(1.0, 9.0, grpc.StatusCode.CANCELLED, id="well before the deadline"),
        pytest.param(10.0, 0.0, grpc.StatusCode.DEADLINE_EXCEEDED, id="at the deadline"),
        pytest.param(9.95, 0.1, grpc.StatusCode.DEADLINE_EXCEEDED, id="a deadline rounded up"),
        pytest.param(10.0, -1.0, grpc.StatusCode.DEADLINE_EXCEEDED, id="after the deadline"),
    ],
)
def test_closed_call_is_late_or_cancelled(
    open_s: float, left_s: float | None, code: grpc.StatusCode
) -> None:
    assert closed_code(open_s, left_s) is code
    if left_s is not None:
        error = closed_error(100.0, 100.0 + open_s + left_s, 100.0 + open_s)
        assert status_of(error).code is code


def test_failure_ends_its_call_with_status_details_and_trailers() -> None:
    call = FakeCall()

    fail(call, Overloaded("full"))

    assert (call.code, call.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert dict(call.trailers).keys() == {"grpc-retry-pushback-ms"}


def test_exception_of_a_handler_ends_its_call_alone(caplog: pytest.LogCaptureFixture) -> None:
    def handle(_call: object, message: bytes) -> None:
        raise RuntimeError(f"{message!r} {INTERNAL_TEXT}")

    call = FakeCall()

    guarded(call, handle, call, b"x")

    assert call.code is grpc.StatusCode.INTERNAL
    assert INTERNAL_TEXT not in call.details
    assert INTERNAL_TEXT in caplog.text
