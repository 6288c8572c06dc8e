import socket
import struct
from collections.abc import Iterator
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.lib import loadgen
from benchmarks.lib.http2 import PREFACE, framed
from benchmarks.lib.loadgen_client import OFFLINE, Caller, Report, Trial

SUMMARY = """
Scenario : Server
Result is : {result}
  Min duration satisfied : Yes
Scheduled samples per second : 2990.02
99.00 percentile latency (ns)   : 321439023
"""
_HEAD = struct.Struct(">HBBBI")


def report(refused: int = 0) -> Report:
    return Report(answered=10, refused=refused, cpu_s=0.1)


@pytest.mark.parametrize(
    ("result", "refused", "is_valid"),
    [("VALID", 0, True), ("INVALID", 0, False), ("VALID", 1, False)],
    ids=["valid", "invalid", "refused"],
)
def test_a_verdict_is_loadgens_and_void_if_a_call_was_refused(
    *, result: str, refused: int, is_valid: bool
) -> None:
    found = loadgen.verdict(SUMMARY.format(result=result), report(refused))

    assert found.is_valid is is_valid
    assert found.figures["99.00 percentile latency (ns)"] == 321439023
    assert found.figures["Scheduled samples per second"] == 2990.02


def test_logged_answers_are_found_by_sample() -> None:
    log = '[{"seq_id": 0, "qsl_idx": 7, "data": "0AFF"}, {"seq_id": 1, "qsl_idx": 2, "data": ""}]'

    assert loadgen.logged(log) == {7: b"\x0a\xff", 2: b""}


@pytest.mark.parametrize("start", [500.0, 990.0, 4000.0], ids=["far below", "near", "far above"])
def test_the_highest_valid_rate_is_valid_and_within_four_percent(start: float) -> None:
    found = loadgen.highest_valid(lambda rate: rate <= 1000, start, is_rough=False)

    assert 1000 / 1.04 <= found <= 1000


def test_no_rate_is_valid_when_none_down_to_a_tenth_is() -> None:
    assert loadgen.highest_valid(lambda _: False, 1000, is_rough=False) == 0


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers every call with the message `x`, and has open what it was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_answer, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _answer(listener: socket.socket) -> None:
    connected, _ = listener.accept()
    with connected:
        rest = b""
        while data := connected.recv(2**16):
            rest = (rest + data).removeprefix(PREFACE)
            while len(rest) >= _HEAD.size:
                high, low, kind, flags, stream = _HEAD.unpack_from(rest)
                end = _HEAD.size + (high << 8 | low)
                if len(rest) < end:
                    break
                rest = rest[end:]
                if kind == 0 and flags & 1:
                    body = framed(b"x")
                    connected.sendall(_HEAD.pack(0, len(body), 0, 1, stream) + body)


def test_every_issued_sample_is_completed_once_beyond_the_limit_of_open_calls(server: str) -> None:
    completed: list[int] = []
    all_completed = Event()

    def response(number: int, _place: int, _size: int) -> int:
        return number

    def complete(numbers: list[int]) -> None:
        completed.extend(numbers)
        if len(completed) >= 5:
            all_completed.set()

    fake: Any = SimpleNamespace(QuerySampleResponse=response, QuerySamplesComplete=complete)
    trial = Trial(
        target=server,
        path="/p",
        bodies=[framed(b"a"), framed(b"b")],
        scenario=OFFLINE,
        seconds=1,
        connections=1,
        in_flight=2,
    )
    caller = Caller(trial, fake)

    caller.issue([10, 11, 12, 13, 14], [0, 1, 0, 1, 0])
    assert all_completed.wait(30)
    caller.close()

    assert sorted(completed) == [10, 11, 12, 13, 14]
    assert (caller.answered, caller.refused) == (5, 0)
