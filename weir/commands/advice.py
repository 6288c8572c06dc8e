"""Which verb a model is for: what a verb says that was given another kind of model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from weir.errors import CallError, InvalidArgument

if TYPE_CHECKING:
    from weir.client import Client

_VERBS = {
    "image-classification": "classify",
    "sequence-classification": "classify-text",
    "tagging": "tag",
    "sequence-to-sequence": "generate",
    "forecasting": "forecast",
}


@contextmanager
def advised(client: "Client", model: str, verb: str) -> Iterator[None]:
    """Turn the refusal of a model that is for another verb into that verb's name.

    The server's own words name its calls, which nobody types.
    """
    try:
        yield
    except InvalidArgument as error:
        task = _task_of(client, model)
        if _VERBS.get(task, verb) == verb:
            raise
        raise InvalidArgument(
            f"model {model!r} is for {task}: ask it with `weir {_VERBS[task]}`"
        ) from error


def _task_of(client: "Client", model: str) -> str:
    """What a model is for; empty where the server cannot say."""
    try:
        return next((one.task for one in client.models() if one.name == model), "")
    except CallError:
        return ""
