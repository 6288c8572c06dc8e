"""Planted bugs, which the parts of the fuzzing must find.

    python -m tests.fuzz.planted NAME MODELS FLAGS...

A bug replaces an attribute of the server in this process; the product has no switch for it.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from weir.server.__main__ import main
from weir.server.protocol import message_limits, request_decoder
from weir.server.runtime.signature import Signature
from weir.server.transport.completion_queue import CompletionQueueTransport


def _reversed_elements() -> None:
    """Typed elements arrive in the reverse order."""

    def make(original: Any) -> Any:
        return lambda values, dtype: original(values, dtype)[::-1]

    _replace(request_decoder, "_numbers", make)


def _one_row_more() -> None:
    """A request may have one row more than the limit."""

    def make(original: Any) -> Any:
        def init(self: Any, *arguments: Any, max_rows: int, **options: Any) -> None:
            original(self, *arguments, max_rows=max_rows + 1, **options)

        return init

    _replace(Signature, "__init__", make)


def _varint_past_the_end() -> None:
    """A number that is cut off raises IndexError."""

    def make(_original: Any) -> Any:
        def varint(data: bytes, position: int, _end: int) -> tuple[int, int]:
            value = shift = 0
            while data[position] & 0x80:
                value |= (data[position] & 0x7F) << shift
                position, shift = position + 1, shift + 7
            return value | data[position] << shift, position + 1

        return varint

    _replace(message_limits, "_varint", make)


def _uncounted_fields() -> None:
    """The fields of a message have no limit."""
    _replace(message_limits, "_MAX_FIELDS", lambda _: 2**62)


def _leaked_descriptor() -> None:
    """Each call leaves a descriptor behind."""

    def make(original: Any) -> Any:
        def begin(self: Any, *arguments: Any) -> Any:
            os.open(os.devnull, os.O_RDONLY)
            return original(self, *arguments)

        return begin

    _replace(CompletionQueueTransport, "_begin", make)


BUGS: dict[str, Callable[[], None]] = {
    "reversed-elements": _reversed_elements,
    "one-row-more": _one_row_more,
    "varint-past-the-end": _varint_past_the_end,
    "uncounted-fields": _uncounted_fields,
    "leaked-descriptor": _leaked_descriptor,
}


def _replace(owner: Any, attribute: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute of a class or module; KeyError if it is gone."""
    setattr(owner, attribute, make(vars(owner)[attribute]))


if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    main(sys.argv[2:])
