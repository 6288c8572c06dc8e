"""Sample batches to compare network and graph on: example rows, and random rows of the same kind.

Rules for padded axes:

- Batches of examples are cut to their longest row.
- Random batches have a random width, and rows of any length from 1.
- Values beyond a row's length are random too, since they must not change the row.
- An axis without lengths is filled up with padding, since padding marks the end of the row.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from weir.bundle.sequences import PaddedAxis
from weir.export.errors import ExportError
from weir.export.spec import ExportSpec, row_count

Inputs = Mapping[str, Tensor]


def shrink(inputs: Inputs, spec: ExportSpec) -> dict[str, Tensor]:
    """Cut a batch to its longest row, along every padded axis."""
    shrunk = dict(inputs)
    # Values beyond a row's length are arbitrary, so axes with lengths are cut first.
    for axis, padded in sorted(
        spec.padded_axes.items(), key=lambda each: each[1].length_input is None
    ):
        longest = _longest(shrunk, axis, padded, spec)
        for name in padded.padding:
            shrunk[name] = shrunk[name].narrow(position_of(axis, name, spec), 0, longest)
    return shrunk


def select(inputs: Inputs, row: int, spec: ExportSpec) -> dict[str, Tensor]:
    """One row of a batch, cut to its own length."""
    return shrink({name: tensor[row : row + 1] for name, tensor in inputs.items()}, spec)


def widen(inputs: Inputs, spec: ExportSpec, least: int) -> dict[str, Tensor]:
    """Fill every padded axis up to `least` entries."""
    widened = dict(inputs)
    for axis, padded in spec.padded_axes.items():
        for name, value in padded.padding.items():
            tensor, position = widened[name], position_of(axis, name, spec)
            missing = max(0, least - tensor.shape[position])
            places = [0, 0] * (tensor.ndim - 1 - position) + [0, missing]
            widened[name] = nn.functional.pad(tensor, places, value=value)
    return widened


def sizes(inputs: Inputs, spec: ExportSpec) -> dict[str, int]:
    """Size of a batch along each padded axis."""
    return {
        axis: inputs[name].shape[position_of(axis, name, spec)]
        for axis, padded in spec.padded_axes.items()
        for name in padded.padding
    }


def check_examples(inputs: Inputs, spec: ExportSpec) -> None:
    """Raise ExportError unless sizes and lengths are consistent and within the axes' limits."""
    for axis, padded in spec.padded_axes.items():
        found = {name: inputs[name].shape[position_of(axis, name, spec)] for name in padded.padding}
        size = max(found.values())
        if set(found.values()) != {size} or not 1 <= size <= padded.maximum:
            raise ExportError(
                f"example inputs: axis {axis!r}: expected one size from 1 to {padded.maximum}, "
                f"got {found}"
            )
        if padded.mask is not None:
            _check_mask(padded.mask, inputs[padded.mask])
        if padded.lengths is None:
            continue
        lengths = inputs[padded.lengths]
        if lengths.is_floating_point() or not 1 <= int(lengths.min()) <= int(lengths.max()) <= size:
            raise ExportError(
                f"example inputs: {padded.lengths}: expected whole numbers from 1 to {size}, "
                f"got {lengths.tolist()[:8]}"
            )


def position_of(axis: str, name: str, spec: ExportSpec) -> int:
    """Position of a named axis in an input that has it."""
    return next(at for at, named in spec.axes_of(name).items() if named == axis)


def lengths_of(inputs: Inputs, padded: PaddedAxis) -> Tensor | None:
    """The rows' lengths (rows,), given by lengths or a mask; None if the padding marks the end."""
    if padded.mask is not None:
        return inputs[padded.mask].ne(0).sum(dim=1)
    return None if padded.lengths is None else inputs[padded.lengths]


def _check_mask(name: str, mask: Tensor) -> None:
    """Raise ExportError unless each row is ones, then zeros."""
    expected = torch.arange(mask.shape[1]) < mask.ne(0).sum(dim=1, keepdim=True)  # (rows, entries)
    is_right = bool((mask == expected).all() and expected.any(dim=1).all())
    if not is_right:
        raise ExportError(
            f"example inputs: {name}: expected rows of 1, then 0 as padding on the right, "
            f"got {mask.tolist()[0][:8]}"
        )


def _longest(inputs: Inputs, axis: str, padded: PaddedAxis, spec: ExportSpec) -> int:
    lengths = lengths_of(inputs, padded)
    if lengths is not None:
        return int(lengths.max())
    longest = 1
    for name, value in padded.padding.items():
        tensor = inputs[name].movedim(position_of(axis, name, spec), 0)  # (entries, …)
        ends = (tensor != value).flatten(1).any(dim=1).nonzero()  # (entries with a value, 1)
        longest = max(longest, 1 + int(ends.max()) if len(ends) else 1)
    return longest


BATCH_SIZES = (1, 2, 3, 8, 32)
_SEED = 20_241
# Random rows may be twice as long as the examples: the graph must not depend on their length.
_LONGER = 2


def batches(examples: Inputs, spec: ExportSpec) -> Iterator[dict[str, Tensor]]:
    """An example batch and a random batch of each size; without a batch axis, one of each.

    Padded axes add a batch of rows with a single entry each, and those of texts a row of the
    maximum.
    """
    generator = torch.Generator().manual_seed(_SEED)
    first = 0
    for size in BATCH_SIZES if spec.batch_axis is not None else (1,):
        batch = take(examples, spec, first, size)
        first += size
        yield batch
        yield _random(examples, batch, _random_sizes(examples, spec, generator), spec, generator)
    if spec.padded_axes:
        shortest = dict.fromkeys(spec.padded_axes, 1)
        yield _random(examples, take(examples, spec, 0, 3), shortest, spec, generator)
    if spec.tokenizer is not None:
        yield longest(examples, spec)


def longest(examples: Inputs, spec: ExportSpec) -> dict[str, Tensor]:
    """A random row as wide as the padded axes allow."""
    generator = torch.Generator().manual_seed(_SEED)
    maxima = {axis: padded.maximum for axis, padded in spec.padded_axes.items()}
    return _random(examples, take(examples, spec, 0, 1), maxima, spec, generator)


def take(examples: Inputs, spec: ExportSpec, first: int, count: int) -> dict[str, Tensor]:
    """`count` rows of the examples from row `first` on; the first row follows the last."""
    return _take(examples, spec, (torch.arange(count) + first) % row_count(examples, spec))


def spread(examples: Inputs, spec: ExportSpec, count: int) -> dict[str, Tensor]:
    """At most `count` rows: the first ones; with lengths, from the longest to the shortest."""
    total = row_count(examples, spec)
    count = min(count, total)
    order = torch.arange(total)
    for padded in spec.padded_axes.values():
        lengths = lengths_of(examples, padded)
        if lengths is not None:
            order = lengths.argsort(descending=True, stable=True)
            return _take(examples, spec, order[torch.linspace(0, total - 1, count).long()])
    return _take(examples, spec, order[:count])


def _take(examples: Inputs, spec: ExportSpec, rows: Tensor) -> dict[str, Tensor]:
    taken = {
        name: tensor if position is None else tensor.index_select(position, rows)
        for name, tensor in examples.items()
        for position in [spec.batch_position(name)]
    }
    return shrink(taken, spec)


def _random_sizes(examples: Inputs, spec: ExportSpec, generator: torch.Generator) -> dict[str, int]:
    most = {
        axis: min(spec.padded_axes[axis].maximum, _LONGER * size)
        for axis, size in sizes(examples, spec).items()
    }
    return {
        axis: int(torch.randint(1, size + 1, (1,), generator=generator))
        for axis, size in most.items()
    }


def _random(
    examples: Inputs,
    batch: Inputs,
    widths: Mapping[str, int],
    spec: ExportSpec,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """A batch of random values like `batch`, with the given size along each padded axis."""
    drawn = {}
    for name, tensor in batch.items():
        shape = list(tensor.shape)
        for position, axis in spec.axes_of(name).items():
            shape[position] = widths.get(axis, shape[position])
        drawn[name] = _random_like(examples[name], name, shape, spec, generator)
    for axis, padded in spec.padded_axes.items():
        if padded.mask is not None:
            mask = drawn[padded.mask]
            ends = torch.randint(1, widths[axis] + 1, (len(mask), 1), generator=generator)
            drawn[padded.mask] = (torch.arange(mask.shape[1]) < ends).to(mask.dtype)
        elif padded.lengths is None:
            _end_rows(drawn, axis, padded, spec, generator)
        else:
            lengths = drawn[padded.lengths]
            drawn[padded.lengths] = torch.randint(
                1, widths[axis] + 1, lengths.shape, generator=generator, dtype=lengths.dtype
            )
    return drawn


def _random_like(
    example: Tensor, name: str, shape: list[int], spec: ExportSpec, generator: torch.Generator
) -> Tensor:
    """Random values of the example's type.

    Floats are standard normal, and bytes take every value. Other integers take every value of their
    value range. Without a range they stay within the examples' minimum and maximum, since they are
    usually indices or lengths.
    """
    if example.is_floating_point():
        return torch.randn(shape, generator=generator).to(example.dtype)
    if example.dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if bounds := spec.ranges.get(name):
        low, high = bounds.minimum, bounds.maximum
    elif example.dtype == torch.uint8:
        low, high = 0, 255
    else:
        low, high = int(example.min()), int(example.max())
    return torch.randint(low, high + 1, shape, generator=generator, dtype=example.dtype)


def _end_rows(
    drawn: dict[str, Tensor],
    axis: str,
    padded: PaddedAxis,
    spec: ExportSpec,
    generator: torch.Generator,
) -> None:
    """Pad each row beyond a random end, or each step of a row that has steps."""
    for name, value in padded.padding.items():
        position = position_of(axis, name, spec)
        tensor = drawn[name].movedim(position, -1)  # (…, entries)
        width = tensor.shape[-1]
        ends = torch.randint(1, width + 1, (*tensor.shape[:-1], 1), generator=generator)
        is_padding = torch.arange(width) >= ends  # (…, entries)
        drawn[name] = tensor.masked_fill(is_padding, value).movedim(-1, position)
