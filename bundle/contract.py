"""`model.json`: what a bundle must say that its graph cannot.

Names, types and shapes of tensors are read off the ONNX graph and are not repeated here.
Reading is strict: unknown keys, unknown formats and values of the wrong type are refused.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from bundle.errors import BrokenBundle

FILE_NAME = "model.json"
FORMAT: Literal[1] = 1

# Plain names only: whatever a path could smuggle in (separators, "..", drives) has no letter here.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Task = Literal["image-classification", "other"]
Precision = Literal["fp32", "fp16", "int8"]
Provider = Literal["cpu", "cuda"]


class _Part(BaseModel):
    """One object of `model.json`: immutable, and without room for what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Batching(_Part):
    """How requests may be put together; the server's operator may choose less."""

    max_rows: Positive = 32
    max_queue_delay_s: NotNegative = 0.0


class Tolerance(_Part):
    """Two numbers agree when |actual - expected| <= absolute + relative * |expected|."""

    absolute: NotNegative
    relative: NotNegative


class Parity(_Part):
    """How far ONNX Runtime was from PyTorch when the bundle was made.

    `max_relative` is the largest |actual - expected| / |expected| where |expected| >= 0.001: nearer
    to zero it says nothing. `examples` says what the inputs were besides random ones.
    """

    max_absolute: NotNegative
    max_relative: NotNegative
    rows: Positive
    batch_sizes: list[Positive]
    examples: str


class Provenance(_Part):
    """The training the weights come from."""

    recipe: str
    data: str
    data_checksum: str
    seed: int
    metrics: dict[str, float] = {}


class Preprocessing(_Part):
    """How an encoded picture becomes one row of `input`: uint8, (height, width, channels).

    `stretch` resizes to (height, width) whatever the picture's proportions. `short-side` resizes
    the short side to `short_side`, the long one in proportion, and cuts the middle out. `output`
    holds the classes' probabilities, one row a picture.
    """

    input: str
    height: Positive
    width: Positive
    channels: Literal[1, 3]
    resize: Literal["stretch", "short-side"]
    short_side: Positive | None = None
    output: str

    @model_validator(mode="after")
    def _check_short_side(self) -> Self:
        if self.resize == "stretch" and self.short_side is not None:
            raise ValueError(f"short_side: expected none with stretch, got {self.short_side}")
        if self.resize == "short-side":
            least = max(self.height, self.width)
            if self.short_side is None or self.short_side < least:
                raise ValueError(f"short_side: expected at least {least}, got {self.short_side}")
        return self


class Quantisation(_Part):
    """What INT8 cost: shares of the test rows answered right, by ONNX Runtime on a CPU.

    `before` is the FP32 graph's, `after` that of the graph in the bundle. `calibration` and `test`
    say which rows set the ranges, and which were answered.
    """

    before: NotNegative
    after: NotNegative
    calibration: str
    calibration_rows: Positive
    test: str
    test_rows: Positive


class Contract(_Part):
    """Everything a server must know about a bundle besides its graph.

    `files` holds every file but `model.json`; the writer fills it in. `batch_axis` is the
    `dim_param` along which requests are put together, None for a model that takes one request
    at a time. `labels` maps an output to the file with its labels, one a line. `preprocessing` says
    how the server makes a tensor of a picture, None where it cannot. `providers` are those that may
    run a graph of this `precision`.
    """

    format: Literal[1] = FORMAT
    task: Task
    architecture: str
    files: dict[FileName, Sha256] = {}
    batch_axis: str | None = "batch"
    labels: dict[str, FileName] = {}
    preprocessing: Preprocessing | None = None
    batching: Batching = Batching()
    precision: Precision = "fp32"
    providers: Annotated[list[Provider], Field(min_length=1)] = ["cpu", "cuda"]
    tolerance: Tolerance
    parity: Parity | None = None
    quantisation: Quantisation | None = None
    training: Provenance | None = None
    versions: dict[str, str] = {}
    commit: str | None = None


def parse(text: bytes, file: str = FILE_NAME) -> Contract:
    """Read a contract from the bytes of `model.json`.

    Raises:
        BrokenBundle: with one line a problem, each naming file, key, what was expected and came.
    """
    try:
        return Contract.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # Another format knows other keys: to list each of them would hide the one real reason.
        formats = [problem for problem in problems if problem["loc"] == ("format",)]
        lines = [_describe(problem, file) for problem in formats or problems]
        raise BrokenBundle("\n".join(lines)) from error


def _describe(problem: ErrorDetails, file: str) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
    match problem["type"]:
        case "missing":
            return f"{file}: {key}: expected a value, got none"
        case "extra_forbidden":
            return f"{file}: {key}: unknown key, expected none of that name"
        case "json_invalid":
            return f"{file}: expected JSON, got something else: {problem['msg']}"
        case "value_error":
            return f"{file}: {key}: {problem['msg'].removeprefix('Value error, ')}"
    expected = problem["msg"].removeprefix("Input should be ")
    return f"{file}: {key}: expected {expected}, got {_shortened(problem['input'])}"


def _shortened(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
