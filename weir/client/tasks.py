"""Task calls: pictures, texts and series to requests of `weir.v1.Tasks`, and their responses.

No I/O but the reading of picture files.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from weir.client.errors import Internal, UsageError
from weir.client.results import Class, ClassifiedText, Forecast, TaggedToken
from weir.client.rpc import Call, Version, parse
from weir.protocol import tasks_pb2 as pb

SERVICE = "weir.v1.Tasks"

Picture: TypeAlias = str | PathLike[str] | bytes | NDArray[np.uint8]
"""A path, a file's bytes (JPEG or PNG), or pixels (height, width[, channels])."""
Text: TypeAlias = str | Sequence[str]
"""A text, which the server tokenizes, or its tokens."""
Columns: TypeAlias = Mapping[str, ArrayLike] | ArrayLike
"""Values by column name, the oldest first; one array for a model of one column."""

_CHANNELS = (1, 3, 4)
_MAX_UINT32 = 2**32 - 1


def classify(
    model: str, pictures: Sequence[pb.Picture], *, top: int, version: Version
) -> Call[list[list[Class]]]:
    """The call for the `top` classes of each picture; UsageError if `top` is out of range."""
    request = pb.ClassifyRequest(
        model_name=model, model_version=str(version), pictures=pictures, top_k=_require_top(top)
    )

    def read(body: bytes) -> list[list[Class]]:
        results = parse(pb.ClassifyResponse, body).results
        _require_count("pictures", len(results), len(pictures))
        return [_classes(each.classes) for each in results]

    return Call(f"/{SERVICE}/Classify", request.SerializeToString(), read)


def tag(model: str, texts: Iterable[Text], *, version: Version) -> Call[list[list[TaggedToken]]]:
    """The call for the tags of each text's tokens."""
    messages = text_messages(texts)
    request = pb.TagRequest(model_name=model, model_version=str(version), texts=messages)

    def read(body: bytes) -> list[list[TaggedToken]]:
        results = parse(pb.TagResponse, body).results
        _require_count("texts", len(results), len(messages))
        return [
            [TaggedToken(t.text, t.tag, t.probability, t.is_unknown) for t in each.tokens]
            for each in results
        ]

    return Call(f"/{SERVICE}/Tag", request.SerializeToString(), read)


def classify_text(
    model: str, texts: Iterable[Text], *, top: int, version: Version
) -> Call[list[ClassifiedText]]:
    """The call for the `top` classes of each text; UsageError if `top` is out of range."""
    messages = text_messages(texts)
    request = pb.ClassifyTextRequest(
        model_name=model, model_version=str(version), texts=messages, top_k=_require_top(top)
    )

    def read(body: bytes) -> list[ClassifiedText]:
        results = parse(pb.ClassifyTextResponse, body).results
        _require_count("texts", len(results), len(messages))
        return [ClassifiedText(_classes(each.classes), list(each.unknown)) for each in results]

    return Call(f"/{SERVICE}/ClassifyText", request.SerializeToString(), read)


def forecast(model: str, columns: Columns, *, horizon: int, version: Version) -> Call[Forecast]:
    """The call for the next `horizon` values of a series; 0 leaves the number to the model."""
    if not 0 <= horizon <= _MAX_UINT32:
        raise UsageError(f"horizon: expected 0 to {_MAX_UINT32}, got {horizon}")
    named = columns if isinstance(columns, Mapping) else {"": columns}
    request = pb.ForecastRequest(
        model_name=model,
        model_version=str(version),
        columns=[_column(name, values) for name, values in named.items()],
        horizon=horizon,
    )

    def read(body: bytes) -> Forecast:
        answer = parse(pb.ForecastResponse, body)
        values, lower, upper = (
            np.array(each, np.float64) for each in (answer.values, answer.lower, answer.upper)
        )
        if not answer.level:
            return Forecast(answer.name, values)
        _require_count("lower bounds", len(lower), len(values))
        _require_count("upper bounds", len(upper), len(values))
        return Forecast(answer.name, values, lower, upper, answer.level)

    return Call(f"/{SERVICE}/Forecast", request.SerializeToString(), read)


def picture_messages(pictures: Iterable[Picture]) -> list[pb.Picture]:
    """Pictures as messages; UsageError for an unreadable file, no pixels, or a single picture."""
    is_one = isinstance(pictures, str | bytes | PathLike)
    if is_one or (isinstance(pictures, np.ndarray) and pictures.ndim != 4):
        raise UsageError("expected several pictures, got one: put it into a list")
    return [_picture(picture) for picture in pictures]


def text_messages(texts: Iterable[Text]) -> list[pb.Text]:
    """Texts as messages; UsageError if `texts` is a single text."""
    if isinstance(texts, str):
        raise UsageError("expected several texts, got one: put it into a list")
    return [text_message(text) for text in texts]


def text_message(text: Text) -> pb.Text:
    """A text, or its tokens, as a message; UsageError if it is neither, or has a lone surrogate."""
    try:
        if isinstance(text, str):
            return pb.Text(text=text)
        return pb.Text(tokens=pb.Tokens(tokens=text))
    except (TypeError, UnicodeEncodeError) as error:
        raise UsageError(f"expected a text or a list of its tokens: {error}") from error


def _require_top(top: int) -> int:
    if not 1 <= top <= _MAX_UINT32:
        raise UsageError(f"top: expected 1 to {_MAX_UINT32}, got {top}")
    return top


def _require_count(kind: str, found: int, expected: int) -> None:
    if found != expected:
        raise Internal(f"expected results for {expected} {kind}, got {found}")


def _classes(classes: Iterable[pb.ClassifyResponse.Class]) -> list[Class]:
    return [Class(each.probability, each.index, each.label) for each in classes]


def _picture(picture: Picture) -> pb.Picture:
    match picture:
        case bytes():
            return pb.Picture(encoded=picture)
        case np.ndarray():
            return pb.Picture(raw=_pixels(picture))
    try:
        return pb.Picture(encoded=Path(picture).read_bytes())
    except OSError as error:
        raise UsageError(f"{picture}: {error.strerror or error}") from error


def _pixels(array: NDArray[np.uint8]) -> pb.Pixels:
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    if array.dtype != np.uint8 or len(shape) != 3 or shape[2] not in _CHANNELS:
        raise UsageError(
            "expected a uint8 array (height, width) or (height, width, 1, 3 or 4), "
            f"got {array.dtype} {array.shape}"
        )
    height, width, channels = shape
    return pb.Pixels(height=height, width=width, channels=channels, values=array.tobytes())


def _column(name: str, values: ArrayLike) -> pb.Column:
    where = f"column {name!r}" if name else "series"
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: expected numbers: {error}") from error
    if array.ndim != 1:
        raise UsageError(f"{where}: expected a row of numbers, got shape {array.shape}")
    return pb.Column(name=name, values=array.tolist())
