from dataclasses import dataclass
from typing import Any

import pytest

from weir.cli.texts import model_of
from weir.client.errors import UsageError
from weir.client.results import IndexEntry


@dataclass
class Index:
    """A client that knows these models."""

    names: tuple[str, ...]

    def index(self, *, ready: bool) -> tuple[IndexEntry, ...]:
        assert ready
        return tuple(IndexEntry(name, "1", "READY", "") for name in self.names)


def chosen(*names: str, model: str = "") -> str:
    client: Any = Index(names)
    return model_of(client, model)


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
