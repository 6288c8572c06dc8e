import pytest

from tests.unit.server.conftest import FakeCall
from weir.server.errors import ClientTooSlow
from weir.server.transport import base
from weir.server.transport.base import BoundedSender


def test_unread_messages_of_a_stream_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "MAX_UNREAD_MESSAGES", 3)
    call = FakeCall()
    tokens = BoundedSender(call)
    for message in (b"1", b"2", b"3"):
        tokens.send(message)

    with pytest.raises(ClientTooSlow, match="3 messages of this stream wait to be read"):
        tokens.send(b"4")

    call.confirm()
    tokens.send(b"5")
    assert call.sent == [b"1", b"2", b"3", b"5"]
