"""Cheap messages that are dear to parse: what each costs the thread that serves every call.

The cost is counted in calls of functions, whatever the machine: some five million of them take a
second. What protobuf itself parses in C is bounded by bytes: see `message_limits`.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.helpers.protobuf_wire import field, varint
from tests.unit.server.conftest import FakeCall
from weir.server.app import App
from weir.server.config import Settings
from weir.server.errors import RequestError
from weir.server.protocol import request_decoder
from weir.server.transport.base import Handlers, Unary
from weir.server.transport.status import guarded

# Of the I/O thread, for any message of any method: under 5 ms on a slow core.
MAX_STEPS = 16_000
KIB_256 = 256 * 1024


NAME = field(1, b"model")


def tensor(datatype: bytes, count: int, contents: bytes) -> bytes:
    shape = field(3, varint(count))
    return NAME + field(5, field(1, b"x") + field(2, datatype) + shape + field(5, contents))


def filled(piece: bytes, size: int = KIB_256) -> bytes:
    return piece * (size // len(piece))


MESSAGES = {
    "65,000 typed empty strings": tensor(b"BYTES", 65_000, field(8, b"") * 65_000),
    "16,000 empty inputs": NAME + field(5, b"") * 16_000,
    "as many empty inputs as are parsed at once": NAME + field(5, b"") * 2040,
    "4,000 typed strings": tensor(b"BYTES", 4000, field(8, b"") * 4000),
    "packed numbers": tensor(b"INT64", 250_000, field(3, b"\1" * 250_000)),
    "empty outputs": NAME + field(6, b"") * 4095,
    "parameters": NAME + b"".join(field(4, field(1, b"%d" % key)) for key in range(4000)),
    "a parameter of unknown fields": NAME + field(4, filled(b"\x50\x01")),
    "raw strings": NAME + field(5, field(1, b"x") + field(2, b"BYTES") + field(3, varint(4096)))
    + field(7, bytes(16_384)),
    "a long name": field(1, b"n" * KIB_256),
    "many long names": field(1, b"n" * 100) * 2500,
    "unknown fields": filled(b"\x98\x06\x01"),
    "nested fields": filled(field(99, field(99, field(99, b"")))),
    "groups": filled(b"\x0b\x0c"),
    "numbers of ten bytes": filled(b"\x08" + b"\xff" * 9 + b"\x01"),
    "empty texts": NAME + field(4, b"") * 2047,
    "megabytes": field(2, bytes(1 << 23)),
}  # fmt: skip


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Handlers:
    """Every handler of a server without its worker threads: what runs is the I/O thread's part."""
    root = tmp_path_factory.mktemp("models")
    values = {"models_dir": root, "port": 0, "metrics_port": 0}
    return App(Settings.model_validate(values))._handlers


def steps_of(call: Callable[[], object]) -> int:
    """How many functions a call goes through, in Python and in C."""
    steps = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return steps


@pytest.mark.parametrize("row", ["H07"])
@pytest.mark.parametrize("payload", MESSAGES.values(), ids=MESSAGES.keys())
def test_message_costs_the_io_thread_little_whatever_its_method(
    handlers: Handlers, payload: bytes, row: str
) -> None:
    dear = {}
    for method, handler in handlers.items():
        if method.endswith("GetServerInfo"):  # known once the ports are bound; its message is empty
            continue
        call = FakeCall(method=method)

        def handle(handler: Any = handler, call: FakeCall = call) -> None:
            if isinstance(handler, Unary):
                guarded(call, handler.handle, call, payload)
            else:
                guarded(call, handler.handle, call)
                guarded(call, call.deliver, payload)

        steps = steps_of(handle)
        if steps > MAX_STEPS:
            dear[method] = steps

    assert len(handlers) > 15
    assert not dear


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(MESSAGES["65,000 typed empty strings"], id="H07-strings"),
        pytest.param(MESSAGES["16,000 empty inputs"], id="H07-inputs"),
    ],
)
def test_dear_message_costs_its_worker_little(payload: bytes) -> None:
    """The worker takes the interpreter's lock from the I/O thread."""

    def tried() -> None:
        try:
            message = request_decoder.parse_request(payload)
            request_decoder.check_count("inputs", len(message.inputs), 1)
            tensors = message.inputs[:]
            forms = request_decoder.forms(tensors)
            request_decoder.decode_inputs(tensors, forms, message.raw_input_contents[:])
        except RequestError:
            return

    assert steps_of(tried) < 2 * MAX_STEPS
