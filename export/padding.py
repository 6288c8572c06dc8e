"""Rows of unequal length in one batch: how long each is, and what is left of it alone.

An axis with a lengths input is as long as that says. Along one without, a row ends behind its last
value that is not padding.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from weir.bundle.sequences import PaddedAxis
from weir.export.errors import ExportError
from weir.export.spec import ExportSpec

Inputs = Mapping[str, Tensor]


def shrink(inputs: Inputs, spec: ExportSpec) -> dict[str, Tensor]:
    """Cut a batch to its longest row, along every padded axis."""
    shrunk = dict(inputs)
    # Beyond a row's length anything may stand, letters too: axes that count go first.
    for axis, padded in sorted(spec.padded_axes.items(), key=lambda each: each[1].lengths is None):
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
    """How many entries a batch has along each padded axis."""
    return {
        axis: inputs[name].shape[position_of(axis, name, spec)]
        for axis, padded in spec.padded_axes.items()
        for name in padded.padding
    }


def check_examples(inputs: Inputs, spec: ExportSpec) -> None:
    """Raise ExportError unless rows are as long as they say, within what the axes allow."""
    for axis, padded in spec.padded_axes.items():
        given = {name: inputs[name].shape[position_of(axis, name, spec)] for name in padded.padding}
        size = max(given.values())
        if set(given.values()) != {size} or not 1 <= size <= padded.maximum:
            raise ExportError(
                f"example inputs: axis {axis!r}: expected one size from 1 to {padded.maximum}, "
                f"got {given}"
            )
        if padded.lengths is None:
            continue
        lengths = inputs[padded.lengths]
        if lengths.is_floating_point() or not 1 <= int(lengths.min()) <= int(lengths.max()) <= size:
            raise ExportError(
                f"example inputs: {padded.lengths}: expected whole numbers from 1 to {size}, "
                f"got {lengths.tolist()[:8]}"
            )


def position_of(axis: str, name: str, spec: ExportSpec) -> int:
    """Where an input has an axis that it carries."""
    return next(at for at, named in spec.axes_of(name).items() if named == axis)


def _longest(inputs: Inputs, axis: str, padded: PaddedAxis, spec: ExportSpec) -> int:
    if padded.lengths is not None:
        return int(inputs[padded.lengths].max())
    longest = 1
    for name, value in padded.padding.items():
        tensor = inputs[name].movedim(position_of(axis, name, spec), 0)  # (entries, …)
        ends = (tensor != value).flatten(1).any(dim=1).nonzero()  # (entries with a value, 1)
        longest = max(longest, 1 + int(ends.max()) if len(ends) else 1)
    return longest
