"""`weir tag`: the tag of each token of texts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.markup import escape

from weir.cli.error_hints import connect
from weir.cli.fan_out import TaskVerb
from weir.cli.options import (
    AsJson,
    Concurrency,
    Model,
    ServerOptions,
    Texts,
    Timeout,
    Version,
    model_name,
    takes_server,
)
from weir.cli.text_inputs import read_texts
from weir.client import defaults

if TYPE_CHECKING:
    from weir.client.results import TaggedToken


@takes_server
def tag(
    texts: Texts,
    *,
    model: Model = "",
    concurrency: Concurrency = 16,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Tag each token of texts.

    A text that fails is reported and skipped. Exit code 1 if a text failed.
    """
    given = read_texts(texts)
    with connect(server, timeout) as client:
        name = model_name(client, model)
        _TAG.run(
            lambda text: client.tag(name, [text], version=version)[0],
            given,
            client=client,
            model=name,
            concurrency=concurrency,
            as_json=as_json,
        )


def _to_json(tokens: "Sequence[TaggedToken]") -> dict[str, object]:
    return {"tokens": list(map(asdict, tokens))}


def _rows(_: str, tokens: "Sequence[TaggedToken]") -> Iterator[tuple[str, ...]]:
    for token in tokens:
        unknown = "[yellow]never seen[/]" if token.is_unknown else ""
        yield escape(token.text), escape(token.tag), f"{token.probability:.4f}", unknown


_TAG = TaskVerb(
    "tag", "text", "tagging", "tagged", ("token", "tag", "probability", ""), _rows, _to_json
)
