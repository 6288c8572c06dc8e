import pytest

from tests.unit.server.conftest import FakeCall
from weir.server.errors import ClientTooSlow
from weir.server.services import unread
from weir.server.services.unread import Unread


def test_caller_who_does_not_read_is_sent_so_much_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unread, "MOST_UNREAD", 3)
    call = FakeCall()
    tokens = Unread(call)
    for message in (b"1", b"2", b"3"):
        tokens.send(message)

    with pytest.raises(ClientTooSlow, match="3 tokens of this stream wait to be read"):
        tokens.send(b"4")

    call.confirm()
    tokens.send(b"5")
    assert call.sent == [b"1", b"2", b"3", b"5"]
