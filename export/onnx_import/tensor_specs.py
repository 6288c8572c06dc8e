"""Inputs and outputs of a graph: names, types and axes; and the change of its declared axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from weir.export.errors import BrokenGraph, ExportError

Axis = int | str | None
"""A fixed size, the name of a free one, or None for a free one without a name."""

# Of names that exporters give to free axes, these name no size (tf2onnx, keras2onnx, skl2onnx).
_MEANINGLESS = ("?", "None", "")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, type and axes of an input or output; `axes` is None if the file does not say."""

    name: str
    dtype: np.dtype[Any]
    axes: tuple[Axis, ...] | None

    def __str__(self) -> str:
        axes = "?" if self.axes is None else ", ".join(str(axis or "?") for axis in self.axes)
        return f"{self.name} {'text' if self.dtype == object else self.dtype} [{axes}]"


def inputs_of(model: onnx.ModelProto) -> list[TensorSpec]:
    """The inputs of a model; BrokenGraph for one that is no tensor of numbers or texts."""
    found = [spec_of(value) for value in model.graph.input]
    if not found:
        raise BrokenGraph("expected a graph with inputs, got none")
    return [_checked(spec, value) for spec, value in zip(found, model.graph.input, strict=True)]


def spec_of(value: onnx.ValueInfoProto) -> TensorSpec | None:
    """An input or output of a graph, None if it is no tensor that numpy holds."""
    if not value.type.HasField("tensor_type"):
        return None
    tensor = value.type.tensor_type
    if tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.BFLOAT16):
        return None
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    # Types of `ml_dtypes` are floats too, and neither numpy's nor the protocol's.
    if dtype.kind not in "biufO" or dtype.isbuiltin != 1:
        return None
    axes = tuple(map(_axis, tensor.shape.dim)) if tensor.HasField("shape") else None
    return TensorSpec(value.name, dtype, axes)


def type_of(value: onnx.ValueInfoProto) -> str:
    """The type of an input or output in words, as `seq(map)`."""
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        return onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return (kind or "no type").removesuffix("_type")


def why_not_held(value: onnx.ValueInfoProto, kind: str) -> str:
    """Why an input or output (`kind`) cannot be imported, one for which `spec_of` is None."""
    if not value.type.HasField("tensor_type"):
        return f"{kind} {value.name!r}: expected a tensor, got {type_of(value)}"
    element = value.type.tensor_type.elem_type
    # The server passes the bits on, but a golden file is numpy's.
    hint = "; `weir serve` serves the file as it is" if element == onnx.TensorProto.BFLOAT16 else ""
    return (
        f"{kind} {value.name!r}: expected a type that recorded {kind}s can hold, "
        f"got {onnx.TensorProto.DataType.Name(element)}{hint}"
    )


def set_axes(value: onnx.ValueInfoProto, axes: Sequence[Axis]) -> None:
    """Declare the axes of an input or output."""
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    # No axes is a shape too, that of a scalar.
    shape.SetInParent()
    for axis in axes:
        dimension = shape.dim.add()
        if isinstance(axis, int):
            dimension.dim_value = axis
        elif axis is not None:
            dimension.dim_param = axis


def find(option: str, name: str, specs: Iterable[TensorSpec], kind: str) -> TensorSpec:
    """The input or output (`kind`) of that name; ExportError with the names that there are."""
    known = {spec.name: spec for spec in specs}
    if name not in known:
        raise ExportError(f"{option}: expected an {kind} of {sorted(known)}, got {name!r}")
    return known[name]


def _checked(spec: TensorSpec | None, value: onnx.ValueInfoProto) -> TensorSpec:
    if spec is None:
        raise BrokenGraph(why_not_held(value, "input"))
    if spec.axes is None:
        raise BrokenGraph(f"input {value.name!r}: expected declared axes, got none")
    return spec


def _axis(dimension: onnx.TensorShapeProto.Dimension) -> Axis:
    if dimension.HasField("dim_value") and dimension.dim_value > 0:
        return int(dimension.dim_value)
    name = dimension.dim_param
    return None if name in _MEANINGLESS or name.startswith("unk") else name
