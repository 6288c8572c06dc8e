from dataclasses import dataclass
from typing import Any

import pytest

from weir.cli.options import duration_s, model_name
from weir.client.errors import UsageError
from weir.client.results import IndexEntry


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10.0), ("500ms", 0.5), ("1.5m", 90.0), ("2h", 7200.0), ("3", 3.0), (" 0.5s ", 0.5)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1 s", "1e3", "ten"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="such as 10s"):
        duration_s(text)


@dataclass
class Index:
    """A client that knows these models."""

    names: tuple[str, ...]

    def index(self, *, ready: bool) -> tuple[IndexEntry, ...]:
        assert ready
        return tuple(IndexEntry(name, "1", "READY", "") for name in self.names)


def chosen(*names: str, model: str = "") -> str:
    client: Any = Index(names)
    return model_name(client, model)


def test_the_only_model_is_meant_where_none_is_named() -> None:
    assert chosen("tagger") == "tagger"
    assert chosen("pair.encoder", "pair.decoder") == "pair"
    assert chosen("pair", "pair.encoder", "pair.decoder") == "pair"
    assert chosen("a", "b", model="c") == "c"


@pytest.mark.parametrize(
    ("names", "got"), [((), "none"), (("b", "a"), "a, b")], ids=["none", "two"]
)
def test_several_models_are_listed(names: tuple[str, ...], got: str) -> None:
    with pytest.raises(UsageError, match=f"expected one of those that are ready: {got}"):
        chosen(*names)
