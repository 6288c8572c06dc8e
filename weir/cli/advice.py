"""What a verb says that was given a model of another kind, or one that is not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING

from weir.client.errors import CallError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from weir.client.client import Client
    from weir.client.results import ModelInfo

_VERBS = {
    "image-classification": "classify",
    "sequence-classification": "classify-text",
    "tagging": "tag",
    "sequence-to-sequence": "generate",
    "forecasting": "forecast",
}


@contextmanager
def advised(client: "Client", model: str, verb: str) -> Iterator[None]:
    """Turn the refusal of a model that is for another verb into that verb's name; and as `listed`.

    The server's own words name its calls, which nobody types.
    """
    try:
        with listed(client, model):
            yield
    except InvalidArgument as error:
        known = models_of(client).get(model)
        task = known.task if known else ""
        if _VERBS.get(task, verb) == verb:
            raise
        raise InvalidArgument(
            f"model {model!r} is for {task}: ask it with `weir {_VERBS[task]}`"
        ) from error


@contextmanager
def listed(client: "Client", model: str) -> Iterator[None]:
    """Add to the refusal of an unknown model which ones there are."""
    try:
        yield
    except NotFound as error:
        known = models_of(client)
        if not known or model in known:
            raise
        names = shorten(", ".join(sorted(known)), 300, placeholder=" …")
        raise NotFound(f"{error}; there are {names}") from error


def models_of(client: "Client") -> "dict[str, ModelInfo]":
    """What a server holds, by name; nothing where it cannot say."""
    try:
        return {one.name: one for one in client.models()}
    except CallError:
        return {}
