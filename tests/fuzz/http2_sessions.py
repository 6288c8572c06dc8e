"""Sessions of hostile HTTP/2 clients: what each sends on its connection, made from a seed.

A session is bytes and pauses, so that it can be saved and sent again.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from tests.helpers.http2_client import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    framed,
    grpc_headers,
    indexed,
    literals,
    reference,
)
from tests.integration.harness import SERVICE, request, tensor

End = Literal["close", "reset", "half-close"]
Chunks = list[bytes]

INFER = f"/{SERVICE}/ModelInfer"
_METHODS = (
    INFER,
    f"/{SERVICE}/ModelStreamInfer",
    f"/{SERVICE}/ServerLive",
    "/weir.v1.Tasks/Classify",
    "/grpc.health.v1.Health/Watch",
    "/none/None",
)
_PRIORITY, _PUSH_PROMISE = 2, 5
_PADDED = 8
_SETTINGS = (0, 1, 100, 16_384, 2**31 - 1, 2**32 - 1)
_GOOD = request("strict", tensor("x", np.ones((1, 4), np.float32))).SerializeToString()
# A bomb of this size costs the server some megabytes; a larger one is a test of its own.
_BOMB_REFERENCES, _BOMB_FRAMES = 1500, 4


@dataclass(frozen=True, slots=True)
class Session:
    """One connection.

    Attributes:
        chunks: in hexadecimal, sent one after the other.
        pause_s: after each chunk.
        end: how the client leaves.
    """

    kind: str
    chunks: Sequence[str]
    pause_s: float
    end: End


def session(random_: random.Random) -> Session:
    """A session: an act after a greeting, perhaps followed by another, perhaps damaged."""
    kind = random_.choice(sorted(_ACTS))
    chunks = _greeting(random_)
    for act in [kind, *random_.choices(sorted(_ACTS), k=random_.choice((0, 0, 1, 2)))]:
        chunks += _ACTS[act](random_)
    if random_.random() < 0.2:
        chunks = [_damaged(chunk, random_) for chunk in chunks]
    return Session(
        kind=kind,
        chunks=[chunk.hex() for chunk in chunks[:400]],
        pause_s=random_.choice((0.0, 0.0, 0.0, 0.001, 0.01)),
        end=random_.choice(("close", "reset", "half-close")),
    )


def dumps(sessions: Sequence[Session], transport: str) -> bytes:
    """Sessions as a file."""
    content = {"transport": transport, "sessions": [asdict(each) for each in sessions]}
    return json.dumps(content).encode()


def loads(data: bytes) -> tuple[list[Session], str]:
    """The sessions of a file, and the server's transport."""
    content = json.loads(data)
    return [Session(**each) for each in content["sessions"]], content["transport"]


def _greeting(random_: random.Random) -> Chunks:
    numbers = random_.sample(
        (1, 2, 3, INITIAL_WINDOW_SIZE, 5, 6, 0xFFFF), random_.choice((0, 1, 3))
    )
    payload = b"".join(
        number.to_bytes(2, "big") + random_.choice(_SETTINGS).to_bytes(4, "big")
        for number in numbers
    )
    settings = bytes(Frame(SETTINGS, 0, 0, payload))
    acknowledged = bytes(Frame(SETTINGS, ACK, 0, b"")) if random_.random() < 0.7 else b""
    return [PREFACE + settings + acknowledged]


def _headers(random_: random.Random, **more: str) -> bytes:
    found = grpc_headers(random_.choice(_METHODS)) | more
    return literals(found)


def _stream(random_: random.Random) -> int:
    return 2 * random_.randrange(1, 40) + 1


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return bytes(Frame(kind, flags, stream, payload))


# Acts


def _silence(random_: random.Random) -> Chunks:
    return [b""] * random_.randrange(20)


def _slow_sender(random_: random.Random) -> Chunks:
    stream, message = _stream(random_), framed(_GOOD)
    calls = _frame(HEADERS, END_HEADERS, stream, literals(grpc_headers(INFER)))
    return [calls, *(_frame(DATA, 0, stream, message[at : at + 1]) for at in range(30))]


def _resets(random_: random.Random) -> Chunks:
    frames = b""
    for stream in range(41, 41 + 2 * random_.choice((10, 100, 500)), 2):
        frames += _frame(HEADERS, END_HEADERS, stream, _headers(random_))
        frames += _frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))
    return [frames]


def _header_bomb(random_: random.Random) -> Chunks:
    bomb = indexed("x-a", "v" * 3900) + reference(0) * random_.randrange(_BOMB_REFERENCES)
    return [
        _frame(HEADERS, END_HEADERS, stream, _headers(random_) + bomb)
        for stream in range(101, 101 + 2 * random_.randrange(1, _BOMB_FRAMES), 2)
    ]


def _large_metadata(random_: random.Random) -> Chunks:
    value = "v" * random_.choice((7000, 9000, 16_000))
    block = _headers(random_, **{"x-long": value})
    return [_frame(HEADERS, END_HEADERS | END_STREAM, _stream(random_), block)]


def _continuations(random_: random.Random) -> Chunks:
    stream = _stream(random_)
    piece = random_.choice((b"", literals({"x-a": "v"}), b"\x40", random_.randbytes(9)))
    flood = _frame(CONTINUATION, 0, stream, piece) * random_.choice((1, 50, 3000))
    ended = _frame(CONTINUATION, END_HEADERS, stream) if random_.random() < 0.5 else b""
    return [_frame(HEADERS, 0, stream, _headers(random_)) + flood + ended]


def _pings(random_: random.Random) -> Chunks:
    size = random_.choice((8, 8, 8, 0, 7, 9))
    ping = _frame(PING, random_.choice((0, 0, ACK)), 0, bytes(size))
    return [ping * random_.choice((1, 10, 1000))]


def _settings(random_: random.Random) -> Chunks:
    payload = random_.randbytes(6 * random_.choice((0, 1, 4))) + bytes(random_.choice((0, 0, 1)))
    flags, stream = random_.choice((0, 0, ACK)), random_.choice((0, 0, 1))
    return [_frame(SETTINGS, flags, stream, payload) * random_.choice((1, 10, 1000))]


def _windows(random_: random.Random) -> Chunks:
    change = random_.choice((0, 1, 2**31 - 1, 2**32 - 1)).to_bytes(4, "big")
    stream = random_.choice((0, 1, 3, 2**31 - 1))
    call = _frame(HEADERS, END_HEADERS, 1, literals(grpc_headers(INFER)))
    call += _frame(DATA, END_STREAM, 1, framed(_GOOD))
    return [call, _frame(WINDOW_UPDATE, 0, stream, change) * random_.choice((1, 3, 1000))]


def _wrong_streams(random_: random.Random) -> Chunks:
    return [
        _frame(
            random_.choice((DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION, _PUSH_PROMISE)),
            random_.choice((0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS)),
            random_.choice((0, 1, 2, 3, 1, 2**31 - 1, 2**32 - 1)),
            random_.choice((b"", bytes(4), framed(_GOOD), _headers(random_))),
        )
        for _ in range(random_.randrange(1, 8))
    ]


def _cut_frame(random_: random.Random) -> Chunks:
    whole = _frame(HEADERS, END_HEADERS, _stream(random_), _headers(random_))
    return [whole[: random_.randrange(len(whole))]]


def _huge_frame(random_: random.Random) -> Chunks:
    head = _frame(random_.choice((DATA, HEADERS, PING, SETTINGS, 99)), 0, 1)[3:]
    size = random_.choice((16_385, 2**20, 2**24 - 1))
    return [size.to_bytes(3, "big") + head + bytes(20_000)]


def _random_bytes(random_: random.Random) -> Chunks:
    return [random_.randbytes(random_.choice((1, 9, 100, 5000)))]


def _goaway(random_: random.Random) -> Chunks:
    payload = random_.randbytes(8) + random_.randbytes(random_.choice((0, 100, 10_000)))
    return [_frame(GOAWAY, 0, random_.choice((0, 1)), payload)]


def _padding(random_: random.Random) -> Chunks:
    pad = random_.randrange(256)
    data = bytes([pad]) + framed(_GOOD) + bytes(random_.choice((pad, 0)))
    call = _frame(HEADERS, END_HEADERS, 1, literals(grpc_headers(INFER)))
    return [call + _frame(DATA, _PADDED | END_STREAM, 1, data)]


def _other_frames(random_: random.Random) -> Chunks:
    kind = random_.choice((_PRIORITY, _PUSH_PROMISE, 10, 99, 255))
    payload = random_.randbytes(random_.choice((0, 4, 5, 100)))
    frame = _frame(kind, random_.randrange(256), random_.choice((0, 1, 3)), payload)
    return [frame * random_.choice((1, 100))]


def _odd_headers(random_: random.Random) -> Chunks:
    headers = grpc_headers(random_.choice(_METHODS))
    timeouts = ("1n", "0S", "99999999H", "999999999S", "-1S", "1x", "", "S", "1" * 3000)
    for name, value in random_.sample(
        (
            *(("grpc-timeout", timeout) for timeout in timeouts),
            ("grpc-encoding", random_.choice(("gzip", "none", ""))),
            ("grpc-accept-encoding", "gzip,," * 100),
            ("content-type", random_.choice(("application/json", "application/grpc+x", ""))),
            (":method", random_.choice(("GET", "PUT", ""))),
            (":path", random_.choice(("", "/", "//", INFER + "/", "/\x7f", "*"))),
            ("te", ""),
            (":authority", "a" * 2000),
            ("X-Upper", "v"),
            ("x-bin", "v"),
            ("x-a-bin", "!!!"),
            ("authorization", "Bearer \x01"),
            ("traceparent", "00-" + "0" * 40),
        ),
        random_.randrange(1, 4),
    ):
        headers[name] = value
    if random_.random() < 0.3:
        del headers[random_.choice(sorted(headers))]
    stream = _stream(random_)
    block = literals(headers)
    return [
        _frame(HEADERS, END_HEADERS, stream, block)
        + _frame(DATA, END_STREAM, stream, framed(_GOOD))
    ]


def _odd_messages(random_: random.Random) -> Chunks:
    path = random_.choice(_METHODS)
    body = random_.choice(
        (
            framed(_GOOD) * 3,
            b"\1" + framed(_GOOD)[1:],
            b"\xff" + framed(_GOOD)[1:],
            b"\0\xff\xff\xff\xff" + _GOOD,
            framed(_GOOD)[:-3],
            framed(random_.randbytes(200)),
            framed(_damaged(_GOOD, random_)),
            b"",
        )
    )
    stream = _stream(random_)
    cut = random_.randrange(len(body) + 1)
    return [
        _frame(HEADERS, END_HEADERS, stream, literals(grpc_headers(path))),
        _frame(DATA, 0, stream, body[:cut]),
        _frame(DATA, random_.choice((0, END_STREAM)), stream, body[cut:]),
    ]


def _good_calls(random_: random.Random) -> Chunks:
    """Make complete calls, and leave their answers unread."""
    calls = b""
    for stream in range(201, 201 + 2 * random_.choice((1, 20, 90)), 2):
        calls += _frame(HEADERS, END_HEADERS, stream, literals(grpc_headers(INFER)))
        calls += _frame(DATA, END_STREAM, stream, framed(_GOOD))
    return [calls]


_ACTS: dict[str, Callable[[random.Random], Chunks]] = {
    "silence": _silence,
    "slow-sender": _slow_sender,
    "resets": _resets,
    "header-bomb": _header_bomb,
    "large-metadata": _large_metadata,
    "continuations": _continuations,
    "pings": _pings,
    "settings": _settings,
    "windows": _windows,
    "wrong-streams": _wrong_streams,
    "cut-frame": _cut_frame,
    "huge-frame": _huge_frame,
    "random-bytes": _random_bytes,
    "goaway": _goaway,
    "padding": _padding,
    "other-frames": _other_frames,
    "odd-headers": _odd_headers,
    "odd-messages": _odd_messages,
    "good-calls": _good_calls,
}


def _damaged(data: bytes, random_: random.Random) -> bytes:
    if not data:
        return data
    at = random_.randrange(len(data))
    choice = random_.randrange(3)
    if choice == 0:
        return data[:at]
    if choice == 1:
        return data[:at] + random_.randbytes(random_.randint(1, 9)) + data[at:]
    return data[:at] + bytes([data[at] ^ 1 << random_.randrange(8)]) + data[at + 1 :]
