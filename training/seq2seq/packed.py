"""Pairs as numbers in memory, end to end, and the padded batches that are taken from them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weir.training.data.pairs import PairData
from weir.training.data.segment import Side
from weir.training.data.vocabulary import BEGIN, END, PAD
from weir.training.errors import DataError
from weir.training.loop import Batch
from weir.training.optimization import NO_TARGET
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.seq2seq.sides import Sides


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of ids, one behind the other.

    ids: (ids of all rows,) int64.
    lengths, starts: (rows,) int64, on the CPU; where a row begins and how far it goes.
    """

    ids: Tensor
    lengths: Tensor
    starts: Tensor

    @staticmethod
    def of(rows: Sequence[Sequence[int]]) -> "Strip":
        """Rows of any length."""
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        ids = torch.tensor([each for row in rows for each in row], dtype=torch.int64)
        return Strip(ids, lengths, torch.cumsum(lengths, 0) - lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> "Strip":
        """The same on a device; lengths stay, as packing wants them on the CPU."""
        return replace(self, ids=self.ids.to(device))

    def take(self, rows: Tensor, fill: int) -> Tensor:
        """Rows as one padded matrix.

        Args:
            rows: (B,) indices, on the CPU.
            fill: what stands beyond a row's end.

        Returns:
            (B, longest of these rows) int64.
        """
        lengths = self.lengths[rows]
        places = torch.arange(int(lengths.max()))[None]  # (1, T)
        is_real = places < lengths[:, None]  # (B, T)
        at = torch.where(is_real, self.starts[rows][:, None] + places, 0).to(self.ids.device)
        return torch.where(is_real.to(self.ids.device), self.ids[at], fill)  # (B, T)


@dataclass(frozen=True, slots=True)
class Pairs:
    """One split: a source and a target a row, neither with BEGIN or END."""

    sources: Strip
    targets: Strip

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def order(self) -> Tensor:
        """(rows,) int64, a number to sort by: the length of the source, and then that of the target."""
        targets = self.targets.lengths
        return self.sources.lengths * (int(targets.max()) + 1) + targets

    def to(self, device: torch.device) -> "Pairs":
        """The same on a device."""
        return Pairs(self.sources.to(device), self.targets.to(device))


def take(pairs: Pairs, rows: Tensor, forced: Tensor | None = None) -> Batch:
    """Rows as one padded batch.

    Args:
        pairs: to take from.
        rows: (B,) indices, on the CPU.
        forced: (B, U) bool, where the decoder is shown `previous`, and not its own last output.

    Returns:
        inputs: tokens (B, T), their lengths (B,) on the CPU, previous (B, U), which is BEGIN and then the target,
        and `forced` where it is given. Targets (B, U): the target and then END. U is the longest target plus one.
    """
    tokens = pairs.sources.take(rows, PAD)  # (B, T)
    ids = pairs.targets.take(rows, PAD)  # (B, U - 1)
    begin = ids.new_full((len(rows), 1), BEGIN)
    previous = torch.cat([begin, ids], dim=1)  # (B, U)
    places = torch.arange(previous.shape[1])[None]  # (1, U)
    ends = pairs.targets.lengths[rows][:, None]  # (B, 1)
    following = torch.cat([ids, begin], dim=1)  # (B, U)
    following = torch.where((places == ends).to(ids.device), END, following)
    targets = torch.where((places > ends).to(ids.device), NO_TARGET, following)  # (B, U)
    inputs = (tokens, pairs.sources.lengths[rows], previous)
    if forced is None:
        return Batch(inputs, targets)
    return Batch((*inputs, forced.to(ids.device)), targets)


def to_pairs(data: PairData, sides: Sides) -> Pairs:
    """A split as numbers; a source stands there once for each of its targets.

    Raises:
        DataError: a text without tokens.
    """
    sources = encode(data.sources, sides.source, data.name)
    counts = [len(targets) for targets in data.references]
    targets = encode((pair.target for pair in data.pairs()), sides.target, data.name)
    repeated = [row for row, count in zip(sources, counts, strict=True) for _ in range(count)]
    return Pairs(Strip.of(repeated), Strip.of(targets))


def encode(texts: Iterable[str], side: Side, name: str) -> list[list[int]]:
    """The ids of each text.

    Raises:
        DataError: a text without tokens; says whose it is.
    """
    rows = []
    for text in texts:
        ids = side.encode(text)
        if not ids:
            raise DataError(f"{name}: expected a text with tokens, found {text!r}")
        rows.append(ids)
    return rows


def fitting(pairs: Pairs, recipe: Seq2SeqRecipe) -> Pairs:
    """The pairs that are short enough to learn from.

    Raises:
        DataError: none is.
    """
    is_short = (pairs.sources.lengths <= recipe.source.most_tokens) & (
        pairs.targets.lengths <= recipe.target.most_tokens
    )
    rows = torch.nonzero(is_short).flatten()
    if not len(rows):
        raise DataError(
            f"{recipe.data}: expected pairs of up to {recipe.source.most_tokens} and "
            f"{recipe.target.most_tokens} tokens, found none"
        )
    return Pairs(_rows_of(pairs.sources, rows), _rows_of(pairs.targets, rows))


def _rows_of(strip: Strip, rows: Tensor) -> Strip:
    if len(rows) == len(strip):
        return strip
    parts = torch.split(strip.ids, strip.lengths.tolist())
    return Strip.of([parts[row].tolist() for row in rows.tolist()])
