from collections.abc import Iterable

import grpc
import pytest

from weir import errors


class Failure:
    def __init__(
        self,
        code: grpc.StatusCode,
        details: str | None = "why",
        trailers: Iterable[tuple[str, str | bytes]] | None = (),
    ) -> None:
        self.error = (code, details, trailers)

    def code(self) -> grpc.StatusCode:
        return self.error[0]

    def details(self) -> str | None:
        return self.error[1]

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        return self.error[2]


def test_the_table_knows_every_status_but_ok() -> None:
    assert set(errors.BY_STATUS) == {status.name for status in grpc.StatusCode} - {"OK"}


def test_every_leaf_is_in_the_table_once() -> None:
    assert set(errors.BY_STATUS.values()) == set(errors.CallError.__subclasses__())
    assert len(set(errors.BY_STATUS.values())) == len(errors.BY_STATUS)


@pytest.mark.parametrize(
    ("pushback", "expected"),
    [("250", 0.25), ("0", 0.0), ("-1", None), ("soon", None), (b"1500", 1.5)],
)
def test_the_servers_pushback_becomes_seconds(pushback: str | bytes, expected: float) -> None:
    trailers = (("other", "1"), ("grpc-retry-pushback-ms", pushback))

    error = errors.from_failure(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, trailers=trailers))

    assert error.retry_after_s == expected


def test_a_failure_without_words_is_told_by_its_status() -> None:
    error = errors.from_failure(Failure(grpc.StatusCode.DEADLINE_EXCEEDED, None, None))

    assert str(error) == "deadline exceeded"
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.retry_after_s is None
