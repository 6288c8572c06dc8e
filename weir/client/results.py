"""What callers get back: small immutable values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Parameter = bool | int | float | str


@dataclass(frozen=True, slots=True, eq=False)
class Answer(Mapping[str, Array]):
    """The outputs of one request by name, and which model gave them.

    Arrays of numbers view the received message and are read-only; BYTES are arrays of `bytes`.
    """

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


@dataclass(frozen=True, slots=True)
class Class:
    """One of the top k classes of a row or picture; `label` is empty if the model has no labels.

    `score` is the value of the output that was ranked: of pictures, always the probability.
    """

    score: float
    index: int
    label: str


@dataclass(frozen=True, slots=True)
class ClassifiedText:
    """The best classes of a text, and those of its tokens that the model has never seen."""

    classes: Sequence[Class]
    unknown: Sequence[str]


@dataclass(frozen=True, slots=True)
class TaggedToken:
    """A token of a text with its likeliest tag; `is_unknown` if the model has never seen it."""

    text: str
    tag: str
    probability: float
    is_unknown: bool


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """A token as it is made: as it stands in the vocabulary, and what it adds to the text so far."""

    token: str
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """One answer to a text.

    `log_probability` is the sum over its tokens and its end, `score` the same, divided for its
    length. `is_complete` is False where a limit cut it off. `attention` (steps, source tokens), each
    step's sums to 1, the end's too; None if it was not asked for or the model looks nowhere.
    """

    text: str
    tokens: Sequence[str]
    log_probability: float
    score: float
    is_complete: bool
    attention: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """What came of a text: hypotheses, best first, and what the text was cut into.

    `unknown` are those of the `source` tokens that the model has never seen.
    """

    model: str
    version: str
    hypotheses: Sequence[Hypothesis]
    source: Sequence[str]
    unknown: Sequence[str]

    @property
    def text(self) -> str:
        """The best hypothesis as a text."""
        return self.hypotheses[0].text


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """The values that follow a series, the nearest first, and the name of its column."""

    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """An input or output; -1 in `shape` is an axis of any size, the batch axis included."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version of a model in the server's repository, and why it is not ready."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a model that serves, is about to, or failed to.

    `state` is READY, LOADING, UNLOADING or UNAVAILABLE; `reason` says why it is not ready, or why its newer
    files were not taken; `since` is when it came into this state. `provider` is empty unless it is ready.
    `parity` is the largest difference from PyTorch when it was exported, `golden` the largest from its
    recorded outputs when the server loaded it; None where nobody measured.
    """

    version: str
    labels: tuple[str, ...]
    state: str
    reason: str
    since: datetime
    provider: str
    parity: float | None
    golden: float | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of a server, its versions the highest first.

    `answering` is the version that a request gets which names none, and `task` what that is made for; both
    are empty where no version answers. `on_disk` are all versions of which there is a directory.
    """

    name: str
    task: str
    answering: str
    versions: tuple[VersionInfo, ...]
    on_disk: tuple[str, ...]
