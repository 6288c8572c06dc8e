"""What is learnt from what: the part of a run that depends on its kind: pictures, sequences, pairs or series."""

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
    """A problem's own part of the record of its run."""

    data: DataRecord
    classes: tuple[str, ...]
    image: ImageRecord | None = None
    sequence: SequenceRecord | None = None
    series: SeriesRecord | None = None
    pairs: PairRecord | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    """What a network answers on the test set.

    accuracy: the share of the answers that are right; none where they are numbers.
    confusions: how often class `row` was taken for class `column`, (classes, classes); likewise.
    metrics: what else there is to say, by the field's names.
    notes: by which settings that was measured, as `RunRecord.test_notes`.
    """

    accuracy: float | None
    confusions: NDArray[np.int64] | None
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class Problem(Protocol):
    """A recipe with its data in memory."""

    @property
    def recipe(self) -> AnyRecipe:
        """By which it was prepared."""

    @property
    def checksum(self) -> str:
        """SHA-256 over the source files of its data."""

    def build(self) -> nn.Module:
        """A network with fresh weights, drawn from torch's global generator."""

    def make_task(self, where: torch.device, *, mixed: bool) -> Task:
        """The batches and the loss, on a device."""

    def describe(self) -> Description:
        """Its part of the record."""

    def leave(self, out: Path) -> None:
        """Write into the run directory what a network needs beside weights and record."""

    def test(self, network: nn.Module, where: torch.device, out: Path) -> Tested:
        """Answer the test set, and draw what is to be seen beside curve and confusions."""
