import threading
from dataclasses import dataclass

import pytest

from weir.server.errors import Overloaded
from weir.server.scheduling.unpacking import SMALL_BYTES, Unpacker

HANG_S = 20.0


@dataclass(frozen=True)
class Message:
    payload: bytes
    number: int = 0


LARGE = bytes(SMALL_BYTES + 1)


def test_small_message_is_unpacked_where_it_arrives() -> None:
    seen: list[str] = []
    unpacker = Unpacker[Message](
        lambda _: seen.append(threading.current_thread().name), max_waiting_bytes=0
    )

    unpacker.accept(Message(bytes(SMALL_BYTES)))

    assert seen == [threading.current_thread().name]


def test_large_messages_are_unpacked_in_turn_by_a_thread_of_their_own() -> None:
    seen: list[tuple[int, str]] = []
    done = threading.Semaphore(0)

    def unpack(message: Message) -> None:
        seen.append((message.number, threading.current_thread().name))
        done.release()

    unpacker = Unpacker[Message](unpack, max_waiting_bytes=10 * len(LARGE))
    unpacker.start()
    for number in range(5):
        unpacker.accept(Message(LARGE, number))

    assert all(done.acquire(timeout=HANG_S) for _ in range(5))
    assert seen == [(number, "weir-unpack") for number in range(5)]


def test_more_waiting_bytes_than_allowed_are_refused_at_once() -> None:
    unpacker = Unpacker[Message](lambda _: None, max_waiting_bytes=2 * len(LARGE))
    for _ in range(2):
        unpacker.accept(Message(LARGE))

    with pytest.raises(Overloaded, match=f"{2 * len(LARGE)} bytes of large messages wait"):
        unpacker.accept(Message(LARGE))


def test_one_message_is_always_accepted_however_large() -> None:
    Unpacker[Message](lambda _: None, max_waiting_bytes=1).accept(Message(LARGE))


def test_bug_costs_a_message_and_not_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def unpack(message: Message) -> None:
        if message.number == 0:
            raise RuntimeError("bug")
        done.set()

    unpacker = Unpacker[Message](unpack, max_waiting_bytes=10 * len(LARGE))
    unpacker.start()
    unpacker.accept(Message(LARGE, 0))
    unpacker.accept(Message(LARGE, 1))

    assert done.wait(HANG_S)
    assert "message lost" in caplog.text
