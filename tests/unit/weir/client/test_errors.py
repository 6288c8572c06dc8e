from collections.abc import Iterable

import grpc
import pytest

from weir.client import errors


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


def test_a_failure_without_a_message_shows_its_status() -> None:
    error = errors.from_failure(Failure(grpc.StatusCode.DEADLINE_EXCEEDED, None, None))

    assert str(error) == "deadline exceeded"
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    ("details", "address"),
    [
        (
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
                "Failed to connect to remote host: Connection refused"
            ),
            "127.0.0.1:1",
        ),
        (
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:1: "
                "Failed to connect to remote host: Connection refused"
            ),
            "[::1]:1",
        ),
        (
            (
                "failed to connect to all addresses; last error: FAILED_PRECONDITION: "
                "unix:/a.sock: connect failed: addr: unix:/a.sock error: No such file or directory"
            ),
            "unix:/a.sock",
        ),
        (
            (
                "errors resolving no.host:1: [field:hostname lookup error:address lookup failed "
                "for no.host:1: Domain name not found]"
            ),
            "no.host:1",
        ),
        ("DNS resolution failed for no.host:1: C-ares status is not ARES_SUCCESS", "no.host:1"),
    ],
    ids=["IPv4", "IPv6", "socket", "name", "name, of old"],
)
def test_a_server_that_is_not_there_is_unreachable(details: str, address: str) -> None:
    error = errors.from_failure(Failure(grpc.StatusCode.UNAVAILABLE, details))

    assert type(error) is errors.Unreachable
    assert str(error) == f"no server answers at {address}"


def test_a_server_that_says_so_itself_is_unavailable() -> None:
    error = errors.from_failure(Failure(grpc.StatusCode.UNAVAILABLE, "echo: is being loaded"))

    assert type(error) is errors.Unavailable
    assert str(error) == "echo: is being loaded"


def test_another_protocol_differs_from_no_server() -> None:
    details = (
        "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:8002: Failed "
        "parsing HTTP/2 (Expected SETTINGS frame as the first frame, got frame type 79)"
    )

    error = errors.from_failure(Failure(grpc.StatusCode.UNAVAILABLE, details))

    assert type(error) is errors.Unreachable
    assert str(error) == "the server at 127.0.0.1:8002 speaks no gRPC"


@pytest.mark.parametrize(
    ("status", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Stream removed (Socket closed)"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
    ],
)
def test_a_server_that_is_killed_under_a_call_went_away(
    status: grpc.StatusCode, details: str
) -> None:
    error = errors.from_failure(Failure(status, details))

    assert type(error) is errors.Unavailable
    assert str(error) == f"the connection was lost before the answer ({details})"


@pytest.mark.parametrize(
    ("details", "setting"),
    [
        (
            "SERVER: Received message larger than max (99 vs. 64)",
            "the server's --max-message-bytes",
        ),
        ("CLIENT: Received message larger than max (99 vs. 64)", "max_message_bytes"),
        ("CLIENT: Sent message larger than max (99 vs. 64)", "max_message_bytes"),
        ("Sent message larger than max (99 vs. 64)", "max_message_bytes"),
    ],
)
def test_message_over_the_limit_names_the_setting(details: str, setting: str) -> None:
    error = errors.from_failure(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, details))

    assert type(error) is errors.ResourceExhausted
    assert str(error) == f"message: expected at most 64 bytes ({setting}), got 99"
