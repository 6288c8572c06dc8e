"""Texts on the wire: texts or tokens → one call of `Tag` or `ClassifyText`, and its answer."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from weir.client.errors import Internal, UsageError
from weir.client.pictures import SERVICE, check_top
from weir.client.results import Class, ClassifiedText, TaggedToken
from weir.client.wire import Call, Version, parse
from weir.protocol.weir.v1 import tasks_pb2 as pb

Text: TypeAlias = str | Sequence[str]
"""A text, which the server cuts into tokens, or tokens."""


def tag(model: str, texts: Iterable[Text], *, version: Version) -> Call[list[list[TaggedToken]]]:
    """The call for the tags of each text's tokens."""
    given = load(texts)
    request = pb.TagRequest(model_name=model, model_version=str(version), texts=given)

    def read(body: bytes) -> list[list[TaggedToken]]:
        results = parse(pb.TagResponse, body).results
        _check_count(len(results), len(given))
        return [
            [TaggedToken(t.text, t.tag, t.probability, t.is_unknown) for t in one.tokens]
            for one in results
        ]

    return Call(f"/{SERVICE}/Tag", request.SerializeToString(), read)


def classify_text(
    model: str, texts: Iterable[Text], *, top: int, version: Version
) -> Call[list[ClassifiedText]]:
    """The call for the `top` classes of each text; UsageError if it is no number of classes."""
    given = load(texts)
    request = pb.ClassifyTextRequest(
        model_name=model, model_version=str(version), texts=given, top_k=check_top(top)
    )

    def read(body: bytes) -> list[ClassifiedText]:
        results = parse(pb.ClassifyTextResponse, body).results
        _check_count(len(results), len(given))
        return [
            ClassifiedText(
                [Class(c.probability, c.index, c.label) for c in one.classes], list(one.unknown)
            )
            for one in results
        ]

    return Call(f"/{SERVICE}/ClassifyText", request.SerializeToString(), read)


def load(texts: Iterable[Text]) -> list[pb.Text]:
    """Texts as messages.

    Raises:
        UsageError: one text where several are expected.
    """
    if isinstance(texts, str):
        raise UsageError("expected several texts, got one: put it into a list")
    return [load_one(text) for text in texts]


def load_one(text: Text) -> pb.Text:
    """A text, or its tokens, as a message.

    Raises:
        UsageError: something else, or half a character, which UTF-8 has not.
    """
    try:
        if isinstance(text, str):
            return pb.Text(text=text)
        return pb.Text(tokens=pb.Tokens(tokens=text))
    except (TypeError, UnicodeEncodeError) as error:
        raise UsageError(f"expected a text or a list of its tokens: {error}") from error


def _check_count(found: int, expected: int) -> None:
    if found != expected:
        raise Internal(f"expected results for {expected} texts, got {found}")
