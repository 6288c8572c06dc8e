"""What callers get back: small immutable values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

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
