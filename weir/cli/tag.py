"""`weir tag`: the tag of each token of texts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from weir.cli.error_hints import connect, requires
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
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client import tasks
    from weir.client.results import TaggedToken


@takes_server
def tag(
    texts: Texts,
    *,
    tokens: Annotated[
        bool,
        typer.Option(
            "--tokens",
            help="TEXTS are tokens with tabs between, or spaces if a text has no tab; the server "
            "does not cut them.",
        ),
    ] = False,
    conll: Annotated[
        bool,
        typer.Option(
            "--conll",
            help="TEXTS are files with a token a line, such as CoNLL-U; their tokens are sent.",
        ),
    ] = False,
    model: Model = "",
    concurrency: Concurrency = 16,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Tag each token of texts.

    The server cuts a text into tokens, unless --tokens or --conll gives them.

    A text that fails is reported and skipped. Exit code 1 if a text failed.
    """
    if tokens and conll:
        raise UsageError("--tokens: expected it without --conll, got both")
    if conll:
        given = [_Text(sentence) for sentence in _read_files(texts)]
    else:
        given = [_Text(_cut(text) if tokens else text) for text in read_texts(texts)]
    with connect(server, timeout) as client:
        name = model_name(client, model)
        _TAG.run(
            lambda text: client.tag(name, [text.content], version=version)[0],
            given,
            client=client,
            model=name,
            concurrency=concurrency,
            as_json=as_json,
        )


@dataclass(frozen=True, slots=True)
class _Text:
    """A text, or its tokens, as the client takes them."""

    content: "tasks.Text"

    def __str__(self) -> str:
        return self.content if isinstance(self.content, str) else " ".join(self.content)


def _cut(text: str) -> list[str]:
    """The tokens between tabs, or between spaces if there is no tab."""
    tokens = text.split("\t") if "\t" in text else text.split()
    return [token.strip() for token in tokens if token.strip()]


def _read_files(paths: Sequence[str]) -> list[list[str]]:
    """The tokens of each sentence of CoNLL files."""
    with requires("train"):
        from weir.training.data.conllu import read_tokens
        from weir.training.errors import TrainingError
    try:
        return [list(tokens) for path in paths for tokens in read_tokens(Path(path))]
    except TrainingError as error:
        raise UsageError(str(error)) from error


def _to_json(tokens: "Sequence[TaggedToken]") -> dict[str, object]:
    return {"tokens": list(map(asdict, tokens))}


def _rows(_: str, tokens: "Sequence[TaggedToken]") -> Iterator[tuple[str, ...]]:
    for token in tokens:
        unknown = "[yellow]never seen[/]" if token.is_unknown else ""
        yield escape(token.text), escape(token.tag), f"{token.probability:.4f}", unknown


_TAG = TaskVerb(
    "tag", "text", "tagging", "tagged", ("token", "tag", "probability", ""), _rows, _to_json
)
