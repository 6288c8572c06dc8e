"""Schemas of the task routes: what their JSON holds. `/openapi.json` is made of the same classes.

A request with an unknown field or a wrong type is refused: `read` names the field, what was
expected, and what came.
"""

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    GetPydanticSchema,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, core_schema

from weir.client.errors import InvalidArgument
from weir.gateway.body import kind_of

MAX_UINT32 = 2**32 - 1
MAX_UINT64 = 2**64 - 1

_MOST_CHARACTERS = 80
_MOST_PROBLEMS = 1000
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than_equal": "at least {ge}",
    "int_type": "an integer",
    "less_than_equal": "at most {le}",
    "list_type": "an array",
    "model_type": "an object",
    "string_type": "a string",
    "string_unicode": "a string of Unicode",
    "text_or_tokens": "a text or a list of its tokens",
    "version": "the number of a version or a label",
}
"""What was expected, by pydantic's type of the error."""


class Request(BaseModel):
    """A request's JSON object: no conversions of types, no other fields."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Response(BaseModel):
    """An answer's JSON object."""

    model_config = ConfigDict(frozen=True)


Document = TypeVar("Document", bound=Request)


def _text_schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
    text = core_schema.str_schema()
    tokens = core_schema.list_schema(core_schema.str_schema(), fail_fast=True)
    return core_schema.union_schema(
        [text, tokens],
        mode="left_to_right",
        custom_error_type="text_or_tokens",
        custom_error_message=_EXPECTED["text_or_tokens"],
    )


def _version_schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
    return core_schema.union_schema(
        [core_schema.str_schema(), core_schema.int_schema(ge=1, le=2**63 - 1)],
        mode="left_to_right",
        custom_error_type="version",
        custom_error_message=_EXPECTED["version"],
    )


Text = Annotated[
    str | list[str],
    GetPydanticSchema(_text_schema),
    Field(description="A text, which the server tokenizes, or its tokens."),
]
Version = Annotated[
    str | int,
    GetPydanticSchema(_version_schema),
    Field(description="The number of a version, or a label of it; by default the server chooses."),
]
Top = Annotated[int, Field(ge=1, le=MAX_UINT32, description="The number of classes, best first.")]
Number = Annotated[
    float,
    WithJsonSchema(
        {"type": ["number", "null"], "description": "null stands for NaN and for infinity."}
    ),
]


class Picture(Request):
    """A picture."""

    base64: str = Field(description="A PNG or JPEG file in base64 (RFC 4648, section 4).")


class ClassifyRequest(Request):
    """Pictures to classify."""

    pictures: Annotated[list[Picture], FailFast()] = Field(
        description="At most as many as the model takes in a batch."
    )
    top: Top = 5
    version: Version = ""


class ClassifyTextRequest(Request):
    """Texts to classify."""

    texts: Annotated[list[Text], FailFast()] = Field(
        description="At most as many as the model takes in a batch."
    )
    top: Top = 5
    version: Version = ""


class TagRequest(Request):
    """Texts whose tokens are tagged."""

    texts: Annotated[list[Text], FailFast()] = Field(
        description="At most as many as the model takes in a batch."
    )
    version: Version = ""


class BeamSearch(Request):
    """Beam search: the `width` likeliest sequences are kept at each step."""

    width: int = Field(ge=1, le=MAX_UINT32)
    length_power: float | None = Field(
        None,
        description="A hypothesis scores its log-probability / ((5 + tokens) / 6) ** length_power;"
        " by default the server's choice.",
    )


class Sampling(Request):
    """Sampling: tokens are drawn by their probabilities."""

    temperature: float = Field(1.0, description="Log-probabilities are divided by it.")
    top_k: int = Field(
        0, ge=0, le=MAX_UINT32, description="Draw among so many likeliest tokens; 0: among all."
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_UINT64,
        description="Equal seeds draw equal tokens; by default the gateway draws a seed.",
    )


class GenerateRequest(Request):
    """A text from which another is generated; greedy without `beam` and `sample`."""

    text: Text
    beam: BeamSearch | None = None
    sample: Sampling | None = None
    n_best: int = Field(1, ge=0, le=MAX_UINT32, description="The number of hypotheses.")
    max_tokens: int = Field(
        0, ge=0, le=MAX_UINT32, description="The most tokens; 0: as many as the bundle allows."
    )
    attention: bool = Field(
        default=False, description="Whether hypotheses carry their attention weights."
    )
    version: Version = ""


class ForecastRequest(Request):
    """The recent values of a series, the oldest first: either `columns` or `values`."""

    columns: dict[str, Annotated[list[float], FailFast()]] = Field(
        default_factory=dict, description="Values by column; as many in each."
    )
    values: Annotated[list[float], FailFast()] = Field(
        default_factory=list, description="The values of a model that reads one column."
    )
    horizon: int = Field(
        0, ge=0, le=MAX_UINT32, description="The number of values to forecast; 0: the model's own."
    )
    version: Version = ""


class Class(Response):
    """A class; `label` is empty if the model has no labels."""

    label: str
    index: int
    probability: Number


class ClassifiedPicture(Response):
    """The classes of a picture, best first."""

    classes: list[Class]


class ClassifyResponse(Response):
    """The classes of each picture, in the order of the request."""

    model: str
    version: str
    results: list[ClassifiedPicture]


class ClassifiedText(Response):
    """The classes of a text, best first, and its tokens that the model does not know."""

    classes: list[Class]
    unknown: list[str]


class ClassifyTextResponse(Response):
    """The classes of each text, in the order of the request."""

    model: str
    version: str
    results: list[ClassifiedText]


class TaggedToken(Response):
    """A token with its likeliest tag."""

    text: str
    tag: str
    probability: Number
    is_unknown: bool


class TaggedText(Response):
    """The tokens of a text."""

    tokens: list[TaggedToken]


class TagResponse(Response):
    """The tagged tokens of each text, in the order of the request."""

    model: str
    version: str
    results: list[TaggedText]


class TokenEvent(Response):
    """The data of the event `token`: a token, and the text that it adds."""

    token: str
    text: str
    log_probability: Number


class Hypothesis(Response):
    """A generated sequence.

    `is_complete` is false if a limit cut it off. `attention` has a row for each step with a weight
    for each source token; it is null if it was not asked for or the model has none.
    """

    text: str
    tokens: list[str]
    log_probability: Number
    score: Number
    is_complete: bool
    attention: list[list[Number]] | None


class ResultEvent(Response):
    """The data of the event `result`: hypotheses, best first, and the tokens of the source."""

    model: str
    version: str
    source: list[str]
    unknown: list[str]
    hypotheses: list[Hypothesis]


class ForecastResponse(Response):
    """The values that follow, the nearest first.

    A share of `level` of the measured values is expected between `lower` and `upper`; these three
    are null if the model has no prediction interval.
    """

    model: str
    version: str
    name: str
    values: list[Number]
    lower: list[Number] | None
    upper: list[Number] | None
    level: float | None


def read(kind: type[Document], document: dict[str, Any]) -> Document:
    """A request from its JSON object; InvalidArgument for the first field that is wrong."""
    unknown = next((key for key in document if key not in kind.model_fields), None)
    if unknown is not None:
        # Pydantic would collect an error for each of a million unknown fields.
        raise InvalidArgument(
            f"{short(unknown)}: unknown field; expected {', '.join(kind.model_fields)}"
        )
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        # To list them takes microseconds each.
        if (count := error.error_count()) > _MOST_PROBLEMS:
            raise InvalidArgument(
                f"body: expected the fields of the schema, got {count} wrong ones"
            ) from None
        raise InvalidArgument(_described(error.errors(include_url=False)[0])) from None


def short(text: str) -> str:
    """A text of the client as it is repeated in a message."""
    shortened = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
    # A lone surrogate cannot be encoded.
    return shortened.encode(errors="backslashreplace").decode()


def _described(problem: ErrorDetails) -> str:
    field = _path(problem["loc"])
    kind = problem["type"]
    match kind:
        case "missing":
            return f"{field}: expected a value, got none"
        case "extra_forbidden":
            return f"{field}: unknown field"
    # A type that is not listed keeps pydantic's words.
    expected = _EXPECTED.get(kind, problem["msg"]).format_map(problem.get("ctx", {}))
    return f"{field}: expected {expected}, got {_shown(problem['input'])}"


def _path(parts: Iterable[str | int]) -> str:
    """A field, such as `pictures[0].base64`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{short(part)}" for part in parts)
    return path.removeprefix(".") or "body"


def _shown(value: object) -> str:
    """A value as a message shows it, in the words of JSON."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{short(value)}"'
        case int() | float():
            return repr(value)
    return kind_of(value)
