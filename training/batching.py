"""Batches of rows of unequal length: packed rows, padding, and grouping by length.

A split is one long tensor of steps and the length of each row. A batch has rows of similar length,
so that little is computed for padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

EVALUATION_ROWS = 256
# Rows are sorted within pools of this many batches: enough to make padding rare, few enough that
# batches differ between epochs.
_POOL = 50


class PaddedIndex(NamedTuple):
    """Indices that gather a padded batch, on the device of the rows.

    at: (B, T) int64, index of each step; 0 beyond a row's length.
    is_real: (B, T) bool, True where a step is real.
    """

    at: Tensor
    is_real: Tensor


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows of unequal length in one tensor, one after the other.

    steps: (steps of all rows, ...).
    lengths, starts: (rows,) int64, on the CPU; the length and the first step of each row.
    """

    steps: Tensor
    lengths: Tensor
    starts: Tensor

    @staticmethod
    def of(steps: Tensor, lengths: Tensor) -> "PackedRows":
        """Rows with these lengths, in the order of `steps`."""
        return PackedRows(steps, lengths, torch.cumsum(lengths, 0) - lengths)

    @staticmethod
    def of_ids(rows: Sequence[Sequence[int]]) -> "PackedRows":
        """Rows of ids, of any length."""
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        ids = torch.tensor([each for row in rows for each in row], dtype=torch.int64)
        return PackedRows.of(ids, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> "PackedRows":
        """The same rows on a device; lengths stay on the CPU, where packing needs them."""
        return replace(self, steps=self.steps.to(device))

    def index(self, rows: Tensor) -> PaddedIndex:
        """Index a batch of rows (B,), given on the CPU, as long as the longest of them."""
        lengths = self.lengths[rows]
        columns = torch.arange(int(lengths.max()))[None]  # (1, T)
        is_real = columns < lengths[:, None]  # (B, T)
        at = torch.where(is_real, self.starts[rows][:, None] + columns, 0)  # (B, T)
        return PaddedIndex(at.to(self.steps.device), is_real.to(self.steps.device))

    def take(self, rows: Tensor, fill: int) -> Tensor:
        """Rows (B,) of ids as one matrix (B, T), with `fill` beyond a row's length."""
        at, is_real = self.index(rows)
        return torch.where(is_real, self.steps[at], fill)  # (B, T)


def group_by_length(lengths: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """All rows in batches of rows of similar length, in random order."""
    order = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for pool in torch.split(order, batch_size * _POOL):
        by_length = pool[torch.argsort(lengths[pool], stable=True)]
        batches += torch.split(by_length, batch_size)
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def shortest_first(lengths: Tensor, batch_size: int = EVALUATION_ROWS) -> Iterator[Tensor]:
    """All rows once, the shortest first, in batches of row indices (B,)."""
    yield from torch.split(torch.argsort(lengths, stable=True), batch_size)
