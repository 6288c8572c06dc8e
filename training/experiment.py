"""The interface of an experiment: everything in a run that depends on its kind."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from weir.training.loop import Task
from weir.training.recipes import AnyRecipe
from weir.training.run_directory import (
    DataRecord,
    ImageRecord,
    PairRecord,
    SequenceRecord,
    SeriesRecord,
)


@dataclass(frozen=True, slots=True)
class Description:
    """The experiment's part of the run's record."""

    data: DataRecord
    classes: tuple[str, ...]
    image: ImageRecord | None = None
    sequence: SequenceRecord | None = None
    series: SeriesRecord | None = None
    pairs: PairRecord | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The network's scores on the test set.

    accuracy: None if targets are numbers.
    confusions: counts (classes, classes) by true class and answer; None if targets are no classes.
    metrics: further measures, by the field's names.
    notes: see `RunRecord.test_notes`.
    """

    accuracy: float | None
    confusions: NDArray[np.int64] | None
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class Experiment(Protocol):
    """A recipe with its data in memory."""

    @property
    def recipe(self) -> AnyRecipe:
        """The recipe that the data were prepared by."""

    @property
    def checksum(self) -> str:
        """SHA-256 over the source files of the data."""

    def build(self) -> nn.Module:
        """Build the network with fresh weights from torch's global generator."""

    def make_task(self, device: torch.device, *, mixed: bool) -> Task:
        """Return the batches, on a device, and the loss."""

    def describe(self) -> Description:
        """Return the experiment's part of the record."""

    def write_files(self, out: Path) -> None:
        """Write what the network needs beside its weights and record into the run directory."""

    def test(self, network: nn.Module, device: torch.device, out: Path) -> Evaluation:
        """Evaluate the network on the test set, and draw the figures of this kind."""
