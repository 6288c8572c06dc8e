import pytest

from weir.server.telemetry.request_record import TraceContext, read_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("flags", "is_sampled"),
    [("01", True), ("00", False), ("03", True), ("fe", False)],
)
def test_traceparent_gives_the_callers_span_and_sampling(flags: str, is_sampled: bool) -> None:  # noqa: FBT001
    metadata = (("user-agent", "x"), ("traceparent", f"00-{TRACE}-{SPAN}-{flags}"))

    assert read_context(metadata) == TraceContext(TRACE, SPAN, is_sampled)


def test_later_version_may_have_more_fields() -> None:
    metadata = (("traceparent", f"01-{TRACE}-{SPAN}-01-more-of-it"),)

    assert read_context(metadata) == TraceContext(TRACE, SPAN, is_sampled=True)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        b"00-bytes",
    ],
    ids=ascii,
)
def test_malformed_traceparent_is_ignored(value: str | bytes) -> None:
    assert read_context((("traceparent", value),)) is None


def test_two_traceparents_are_ignored() -> None:
    header = ("traceparent", f"00-{TRACE}-{SPAN}-01")

    assert read_context((header, header)) is None
    assert read_context(()) is None
