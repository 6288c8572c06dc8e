import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lib.http2 import (
    MAX_BODY_BYTES,
    PREFACE,
    Broken,
    Connection,
    Event,
    framed,
    messages,
    pushback_s,
    status_of,
)

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """An independent reading of what was written: kind, flags, stream, payload."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def started(*bodies: bytes) -> Connection:
    connection = Connection("127.0.0.1:1", "/a.B/C", bodies or (framed(b"hello"),))
    assert connection.outgoing().startswith(PREFACE)
    return connection


def test_a_call_is_headers_and_a_body_that_ends_the_stream() -> None:
    connection = started(framed(b"hello"))

    stream = connection.call(0)
    (headers, data) = frames(connection.outgoing())

    assert headers[:3] == (HEADERS, 4, stream)
    assert b"\x05:path\x06/a.B/C" in headers[3]
    assert data == (DATA, END_STREAM, stream, b"\0\0\0\0\x05hello")


def test_streams_are_odd_and_rise() -> None:
    connection = started()

    assert [connection.call(0) for _ in range(3)] == [1, 3, 5]


def test_a_large_body_goes_out_in_frames_of_which_the_last_ends_the_stream() -> None:
    body = bytes(40_000)
    connection = started(body)

    stream = connection.call(0)
    sent = frames(connection.outgoing())[1:]

    assert b"".join(payload for *_, payload in sent) == body
    assert [len(payload) for *_, payload in sent] == [16_384, 16_384, 7_232]
    assert [flags for _, flags, *_ in sent] == [0, 0, END_STREAM]
    assert {number for _, _, number, _ in sent} == {stream}


def test_calls_wait_for_the_window() -> None:
    connection = started(bytes(MAX_BODY_BYTES))
    connection.call(0)
    connection.call(0)

    first = frames(connection.outgoing())
    assert {stream for _, _, stream, _ in first} == {1}

    connection.received(frame(WINDOW_UPDATE, 0, 0, MAX_BODY_BYTES.to_bytes(4, "big")))
    assert {stream for _, _, stream, _ in frames(connection.outgoing())} == {3}


def test_calls_wait_until_the_server_allows_another() -> None:
    connection = started()
    connection.received(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 2)))
    connection.outgoing()
    for _ in range(3):
        connection.call(0)

    assert {stream for _, _, stream, _ in frames(connection.outgoing())} == {1, 3}

    connection.received(answer(1, b""))
    assert {stream for _, _, stream, _ in frames(connection.outgoing())} == {5}


def test_a_body_that_no_window_must_have_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        Connection("127.0.0.1:1", "/a.B/C", [bytes(MAX_BODY_BYTES + 1)])


def answer(stream: int, message: bytes) -> bytes:
    return (
        frame(HEADERS, 4, stream, b"\x88")
        + frame(DATA, 0, stream, framed(message))
        + frame(HEADERS, 4 | END_STREAM, stream, b"status")
    )


@given(st.lists(st.integers(0, 200), min_size=1, max_size=10), st.integers(1, 50))
def test_answers_are_found_however_the_bytes_are_cut(sizes: list[int], chunk: int) -> None:
    connection = started()
    streams = [connection.call(0) for _ in sizes]
    wire = b"".join(answer(s, bytes(n)) for s, n in zip(streams, sizes, strict=True))

    events = []
    for start in range(0, len(wire), chunk):
        events += connection.received(wire[start : start + chunk])

    expected = []
    for stream, size in zip(streams, sizes, strict=True):
        expected += [Event(stream, None), Event(stream, framed(bytes(size)), b"status")]
    assert events == expected


def test_a_call_without_a_message_ends_empty() -> None:
    connection = started()
    refused, reset = connection.call(0), connection.call(0)

    events = connection.received(
        frame(HEADERS, 4 | END_STREAM, refused, b"status") + frame(RST_STREAM, 0, reset, bytes(4))
    )

    assert events == [Event(refused, b"", b"status"), Event(reset, b"")]


def test_a_reset_after_the_end_is_nothing_new() -> None:
    connection = started()
    stream = connection.call(0)
    connection.received(answer(stream, b""))

    assert connection.received(frame(RST_STREAM, 0, stream, bytes(4))) == []


def test_a_call_with_a_timeout_carries_it() -> None:
    connection = started()

    connection.call(0, 0.25)

    assert b"\x0cgrpc-timeout\x07250000u" in frames(connection.outgoing())[0][3]


def test_a_cancelled_call_is_reset_and_has_no_more_events() -> None:
    connection = started()
    stream = connection.call(0)
    connection.outgoing()

    connection.cancel(stream)

    assert frames(connection.outgoing()) == [(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))]
    assert connection.received(answer(stream, b"")) == []


def test_a_call_that_is_cancelled_before_it_is_sent_leaves_no_trace() -> None:
    connection = started()
    connection.received(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 1)))
    connection.call(0)
    connection.outgoing()
    held = connection.call(0)

    connection.cancel(held)

    assert connection.outgoing() == b""


def test_status_and_pushback_are_literals_of_the_trailers() -> None:
    block = b"\x40\x0bgrpc-status\x018\x00\x16grpc-retry-pushback-ms\x03250"

    assert status_of(block) == 8
    assert pushback_s(block) == 0.25
    assert status_of(b"\x88") is None
    assert pushback_s(b"\x88") is None


def test_pings_and_settings_are_answered() -> None:
    connection = started()

    connection.received(frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0, b""))

    assert frames(connection.outgoing()) == [(PING, ACK, 0, b"12345678"), (SETTINGS, ACK, 0, b"")]


def test_what_was_read_is_given_back_to_the_window_in_time() -> None:
    connection = started()
    stream = connection.call(0)
    connection.outgoing()

    for _ in range(2**17 + 1):
        connection.received(frame(DATA, 0, stream, bytes(16_384)))
        if sent := connection.outgoing():
            break

    ((kind, _, number, size),) = frames(sent)
    assert (kind, number) == (WINDOW_UPDATE, 0)
    assert struct.unpack(">I", size)[0] >= 2**24


def test_goodbye_is_an_error() -> None:
    with pytest.raises(Broken, match="too_many_pings"):
        started().received(frame(GOAWAY, 0, 0, bytes(8) + b"too_many_pings"))


@given(st.lists(st.binary(max_size=50)))
def test_messages_are_what_was_framed(sent: list[bytes]) -> None:
    assert messages(b"".join(map(framed, sent))) == sent
