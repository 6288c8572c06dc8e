"""The inputs a graph is tried on: rows of the examples, and random rows of the same kind."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from export.spec import ExportSpec, row_count

BATCH_SIZES = (1, 2, 3, 8, 32)
_SEED = 20_241


def batches(examples: Mapping[str, Tensor], spec: ExportSpec) -> Iterator[dict[str, Tensor]]:
    """An example and a random batch of each size; without a batch axis, one of each kind."""
    generator = torch.Generator().manual_seed(_SEED)
    first = 0
    for size in BATCH_SIZES if spec.batch_axis is not None else (1,):
        batch = take(examples, spec, first, size)
        first += size
        yield batch
        yield {name: _random_like(tensor, generator) for name, tensor in batch.items()}


def take(
    examples: Mapping[str, Tensor], spec: ExportSpec, first: int, count: int
) -> dict[str, Tensor]:
    """`count` rows of the examples from row `first` on, starting over at their end."""
    rows = (torch.arange(count) + first) % row_count(examples, spec)
    return {
        name: tensor if position is None else tensor.index_select(position, rows)
        for name, tensor in examples.items()
        for position in [spec.batch_position(name)]
    }


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Random values of the same type and shape.

    Bytes take every value, floats are standard normal. Other integers stay between the least and
    the greatest of the example, since they are usually indices or lengths.
    """
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    if tensor.dtype == torch.bool:
        return torch.rand(tensor.shape, generator=generator) < 0.5
    low, high = (0, 255) if tensor.dtype == torch.uint8 else _bounds(tensor)
    return torch.randint(low, high + 1, tensor.shape, generator=generator, dtype=tensor.dtype)


def _bounds(tensor: Tensor) -> tuple[int, int]:
    return int(tensor.min()), int(tensor.max())
