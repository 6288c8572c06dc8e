"""Results of calls: small immutable values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Parameter = bool | int | float | str


@dataclass(frozen=True, slots=True, eq=False)
class Answer(Mapping[str, Array]):
    """The outputs of an inference request by name, with the model and version that ran.

    Numeric arrays view the received message and are read-only; BYTES are arrays of `bytes`.
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
    """One of the top k classes of a row, picture or text; `label` is empty without labels.

    `score` is the value of the ranked output; for task calls the probability.
    """

    score: float
    index: int
    label: str


@dataclass(frozen=True, slots=True)
class ClassifiedText:
    """The top classes of a text, and its out-of-vocabulary tokens."""

    classes: Sequence[Class]
    unknown: Sequence[str]


@dataclass(frozen=True, slots=True)
class TaggedToken:
    """A token of a text with its likeliest tag; `is_unknown` marks one out of vocabulary."""

    text: str
    tag: str
    probability: float
    is_unknown: bool


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """A generated token: its vocabulary entry, and the text that it appends."""

    token: str
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """One generated sequence.

    `log_probability` is the sum over its tokens and its end; `score` is that sum after length
    normalisation. `is_complete` is False if the token limit truncated it. `attention` (steps,
    source tokens) sums to 1 in each step, the end's included; None if it was not requested or the
    model has no attention.
    """

    text: str
    tokens: Sequence[str]
    log_probability: float
    score: float
    is_complete: bool
    attention: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """The result of a generation: hypotheses, best first, and the tokens of the source.

    `unknown` lists the `source` tokens that are out of vocabulary.
    """

    model: str
    version: str
    hypotheses: Sequence[Hypothesis]
    source: Sequence[str]
    unknown: Sequence[str]

    @property
    def text(self) -> str:
        """The text of the best hypothesis."""
        return self.hypotheses[0].text


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """The forecast of a series, the nearest value first, and the name of its column.

    A share of `level` of the measured values is expected between `lower` and `upper`. They are
    None if the model has no prediction interval.
    """

    name: str
    values: NDArray[np.float64]
    lower: NDArray[np.float64] | None = None
    upper: NDArray[np.float64] | None = None
    level: float | None = None


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """An input or output tensor; -1 in `shape` is an axis of any size, such as the batch axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The input and output tensors of a model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version in the repository index; `reason` says why it is not ready."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a model that is loaded, loading, unloading or failed.

    `state` is READY, LOADING, UNLOADING or UNAVAILABLE, since the time `since`. `reason` says why
    it is not ready, or why its changed files were rejected. `provider` is empty unless it is ready.
    `parity` is the largest difference when the bundle was made, `golden` the largest from the
    recorded outputs at loading; None without a measurement. `is_batched` is whether requests
    share batches, None unless it is ready; `batching_reason` says what decided that.
    `unserved_outputs` are those that are no tensors, with their types. `threads` are those within
    one operator, `instances` the batches that run at the same time; both are 0 unless it is ready.
    """

    version: str
    labels: tuple[str, ...]
    state: str
    reason: str
    since: datetime
    provider: str
    parity: float | None
    golden: float | None
    is_batched: bool | None = None
    batching_reason: str = ""
    unserved_outputs: tuple[str, ...] = ()
    threads: int = 0
    instances: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of a server, its versions the highest first.

    `answering` is the default version, which answers requests without a version, and `task` its
    task; both are empty if no version is ready. `on_disk` lists all version directories.
    """

    name: str
    task: str
    answering: str
    versions: tuple[VersionInfo, ...]
    on_disk: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Versions and choices of a server process.

    Attributes:
        version: of Weir.
        provider: the execution provider that models get, cpu or cuda.
        transport: completion-queue or grpc-server.
        transport_problem: why the fast transport is not used although the setting allows it, or "".
        metrics_address: host and port of /metrics.
        process_id: of the process that answered; several may share one port.
        started: when the process was started, in UTC.
        usable_cores: of the CPU, by that process; 0 if the server does not say it.
        shares_port: whether other processes may listen on the same port.
    """

    version: str
    grpcio: str
    onnxruntime: str
    provider: str
    transport: str
    transport_problem: str
    metrics_address: str
    process_id: int
    started: datetime
    usable_cores: int = 0
    shares_port: bool = False


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A label that was set or removed by call.

    Attributes:
        is_written: whether it is in the model's `versions.toml`, so that it outlives the server.
        reason: why it is not written; it then holds until the server stops.
    """

    is_written: bool
    reason: str
