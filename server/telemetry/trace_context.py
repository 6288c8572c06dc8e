"""The W3C trace context of a call: https://www.w3.org/TR/trace-context/, as far as a server needs it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace_id>[0-9a-f]{32})"
    r"-(?!0{16})(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The caller's span.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 of them.
        is_sampled: whether the caller records it.
    """

    trace_id: str
    span_id: str
    is_sampled: bool


def read_context(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """The caller's span; None where no `traceparent`, a malformed one, or more than one came."""
    values = [value for key, value in metadata if key == "traceparent"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    found = _TRACEPARENT.fullmatch(values[0])
    # Later versions may add fields; the first has none.
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    is_sampled = bool(int(found["flags"], 16) & _SAMPLED)
    return TraceContext(found["trace_id"], found["span_id"], is_sampled)
