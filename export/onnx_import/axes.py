"""Batch axis and padded axis of an imported graph: found, and named in the graph.

A bundle's contract names axes by `dim_param`. The declared axes of an exporter are hints only: the
outputs' axes are observed in runs of several sizes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ValidationError

from weir.bundle.sequences import PaddedAxis
from weir.export.errors import BrokenGraph, ExportError
from weir.export.onnx_import.examples import BATCH, TIME, ExampleSampler
from weir.export.onnx_import.spec import ImportSpec
from weir.export.onnx_import.tensor_specs import (
    Axis,
    TensorSpec,
    find,
    inputs_of,
    set_axes,
    spec_of,
)

Array = NDArray[Any]

# Sizes that no fixed axis is likely to have.
OBSERVED_ROWS, OBSERVED_WIDTHS = (2, 3), (7, 11)


class NoBatchAxisError(ExportError):
    """The inputs have no first axis in common that could be the batch."""


def name_inputs(
    model: onnx.ModelProto, inputs: Sequence[TensorSpec], padded: Mapping[str, int]
) -> bool:
    """Name the batch axis, and the padded axis of some inputs; returns whether the batch was 1.

    Raises:
        NoBatchAxisError: the first axes are no batch axis.
    """
    first = [(spec, (spec.axes or (0,))[0]) for spec in inputs]
    for spec, axis in first:
        if not spec.axes or (isinstance(axis, int) and axis != 1):
            raise NoBatchAxisError(f"input {spec}: its first axis is not free")
    is_fixed = any(axis == 1 for _, axis in first)
    if is_fixed and not all(axis == 1 for _, axis in first):
        raise NoBatchAxisError(
            "the first axis is 1 in some inputs and free in others: " + ", ".join(map(str, inputs))
        )
    for value, spec in zip(model.graph.input, inputs, strict=True):
        axes = [_other(axis) for axis in spec.axes or ()]
        axes[0] = BATCH
        if spec.name in padded:
            axes[padded[spec.name]] = TIME
        set_axes(value, axes)
    return is_fixed


def forget_meanings(model: onnx.ModelProto) -> None:
    """Remove names of the inputs' axes that mean something here: without rows they mean nothing."""
    for value, spec in zip(model.graph.input, inputs_of(model), strict=True):
        set_axes(value, [_other(axis) for axis in spec.axes or ()])


def is_fixed_at_one(inputs: Sequence[TensorSpec]) -> bool:
    """Whether the first axis of every input is 1."""
    return all(spec.axes and spec.axes[0] == 1 for spec in inputs)


def forget_shapes(model: onnx.ModelProto) -> None:
    """Remove the declared shapes of outputs and of tensors inside the graph."""
    # They may name the axes that are renamed, or a batch of 1.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def name_outputs(
    model: onnx.ModelProto,
    declared: Mapping[str, TensorSpec],
    observed: Sequence[Mapping[str, Array]],
    sampler: ExampleSampler,
    widths: Sequence[int],
) -> None:
    """Declare the axes of the outputs, as observed in two runs of other rows and widths.

    BrokenGraph if an axis varies with the padded axis, but has another size.
    """
    is_free = any(
        not isinstance(axis, int) and axis not in (BATCH, TIME)
        for spec in sampler.inputs
        for axis in spec.axes or ()
    )
    for value in model.graph.output:
        shapes = [run[value.name].shape for run in observed]
        if len(set(map(len, shapes))) != 1:
            continue
        own = declared[value.name].axes
        known = own if own is not None and len(own) == len(shapes[0]) else None
        axes: list[Axis] = []
        for place, sizes in enumerate(zip(*shapes, strict=True)):
            given = known[place] if known else None
            if place == 0 and sampler.has_rows:
                axes.append(BATCH)
            elif sampler.padded and sizes == tuple(widths) and len(set(widths)) > 1:
                axes.append(TIME)
            elif len(set(sizes)) > 1:
                if sampler.padded:
                    raise BrokenGraph(
                        f"output {value.name!r}: expected axes that follow the padded axis, got "
                        f"sizes {list(sizes)} for {list(widths)}"
                    )
                axes.append(None)
            elif given == sizes[0] or (known is None and not is_free):
                axes.append(int(sizes[0]))
            else:
                axes.append(None if isinstance(given, int) else _other(given))
        set_axes(value, axes)


def padded_places(
    time_axes: Mapping[str, int],
    lengths: str | None,
    mask: str | None,
    inputs: Sequence[TensorSpec],
) -> dict[str, int]:
    """By input, the position of the padded axis; ExportError unless they are free axes."""
    for option, length_input, axes_of_it in (("lengths", lengths, 1), ("mask", mask, 2)):
        if length_input is None:
            continue
        spec = find(option, length_input, inputs, "input")
        if len(spec.axes or ()) != axes_of_it or (
            option == "lengths" and spec.dtype.kind not in "iu"
        ):
            expected = "integers [batch]" if option == "lengths" else "[batch, time]"
            raise ExportError(f"{option}: expected an input of {expected}, got {spec}")
    places = dict(time_axes) or _only_free_axis(lengths or mask, inputs)
    if mask is not None:
        places[mask] = 1
    for name, place in places.items():
        tensor = find("time axis", name, inputs, "input")
        axes = tensor.axes or ()
        if not 1 <= place < len(axes):
            raise ExportError(
                f"time axis: expected an axis from 1 to {len(axes) - 1}, got {place} for {tensor}"
            )
        if isinstance(axes[place], int):
            raise ExportError(
                f"time axis: expected a free axis, got {axes[place]} at axis {place} of {tensor}: "
                "export the file with this axis dynamic"
            )
    return places


def padded_axis(
    spec: ImportSpec, places: Mapping[str, int], mask: str | None, maximum: int
) -> PaddedAxis | None:
    """The padded axis of the contract, None without one."""
    for name in spec.padding:
        if name not in places:
            raise ExportError(
                f"padding: expected an input with a time axis, {sorted(places)}, got {name!r}"
            )
    if not places:
        return None
    padding = {name: spec.padding.get(name, 0) for name in places}
    try:
        return PaddedAxis(maximum=maximum, lengths=spec.lengths, mask=mask, padding=padding)
    except ValidationError as error:
        raise ExportError("; ".join(each["msg"] for each in error.errors())) from error


def observed_widths(padded: PaddedAxis | None) -> tuple[int, int]:
    """Two sizes of the padded axis to observe the outputs with."""
    most = padded.maximum if padded else 1
    return (min(OBSERVED_WIDTHS[0], max(1, most - 1)), min(OBSERVED_WIDTHS[1], most))


def observe(sampler: ExampleSampler, rows: int, width: int) -> Mapping[str, Array]:
    """Inputs to observe the outputs' axes with."""
    return sampler.draw(rows, np.random.default_rng(rows), width if sampler.padded else None)


def declared_outputs(model: onnx.ModelProto) -> dict[str, TensorSpec]:
    """The outputs as the file declares them."""
    specs = [spec_of(value) for value in model.graph.output]
    return {spec.name: spec for spec in specs if spec is not None}


def _only_free_axis(length_input: str | None, inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """The free axis of each input that has one beside the batch, if something counts entries."""
    if length_input is None:
        return {}
    found = {}
    for spec in inputs:
        free = [
            place
            for place, axis in enumerate(spec.axes or ())
            if place and not isinstance(axis, int)
        ]
        if len(free) > 1:
            raise ExportError(f"time axis: expected INPUT=AXIS, since {spec} has several free axes")
        if free:
            found[spec.name] = free[0]
    if not found:
        raise ExportError(
            f"{length_input}: expected an input with a free axis beside the batch, got "
            + ", ".join(map(str, inputs))
        )
    return found


def _other(axis: Axis) -> Axis:
    """An axis that keeps its name, unless the name has a meaning here."""
    return None if axis in (BATCH, TIME) else axis
