"""Parity gate: a graph is published only if its outputs agree with the network's.

Rules:

- Two numbers agree if |onnx - torch| <= absolute + relative * |torch|, as in `numpy.allclose`.
- Every value is compared, not the argmax: a label may survive an error that moves all logits.
- Along padded axes values are compared within each row's length; values beyond it are ignored.
- Requests may share a batch: a row alone, cut to its own length, must give the same outputs as in a
  padded batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.bundle.contract import Parity, Tolerance
from weir.export import runtime
from weir.export.difference import Difference, compare
from weir.export.errors import ExportError, ParityError
from weir.export.samples import BATCH_SIZES, select, sizes
from weir.export.spec import ExportSpec, row_count

Array = NDArray[Any]

Axes = Sequence[str | int]

# Batches of up to 3 rows are also run row by row; with padded axes, all batches are.
_ROWS_ALONE = 3


def measure(
    module: nn.Module,
    model: bytes,
    batches: Iterable[Mapping[str, Tensor]],
    spec: ExportSpec,
    external_data: Mapping[str, bytes] = MappingProxyType({}),
) -> Parity:
    """Compare network and graph; ParityError beyond `spec.tolerance`, or for another shape."""
    session = runtime.open_session(model, external_data=external_data)
    compared = _compare_all(module, session, batches, spec)
    _check_differences(compared, spec.tolerance)
    _check_rows_alone(session, compared, spec)
    return _summary(compared, spec)


def record(
    module: nn.Module, model: bytes, batches: Iterable[Mapping[str, Tensor]], spec: ExportSpec
) -> Parity:
    """Compare them without a limit; ParityError for another type or shape, NaN or infinity."""
    compared = _compare_all(module, runtime.open_session(model), batches, spec)
    gaps = [each.absolute for batch in compared for each in batch.differences.values()]
    if not np.isfinite(gaps).all():
        raise ParityError("ONNX Runtime: expected finite outputs, got NaN; nothing was published")
    return _summary(compared, spec)


def run_network(
    module: nn.Module, inputs: Mapping[str, Tensor], spec: ExportSpec
) -> dict[str, Array]:
    """Outputs of the network, in eval mode, by name; ExportError if `spec` names others."""
    with torch.inference_mode():
        result = module(**inputs)
    if isinstance(result, Tensor):
        result = (result,)
    values = list(result.values() if isinstance(result, Mapping) else result)
    if len(values) != len(spec.outputs) or not all(isinstance(v, Tensor) for v in values):
        kinds = [type(value).__name__ for value in values]
        raise ExportError(f"forward: expected tensors for {list(spec.outputs)}, got {kinds}")
    return {name: v.numpy(force=True) for name, v in zip(spec.outputs, values, strict=True)}


@dataclass(frozen=True, slots=True)
class _ComparedBatch:
    """A batch with the graph's outputs and their differences from PyTorch's.

    `rows` are the batch's single rows, each cut to its own length; empty without a batch axis.
    """

    inputs: Mapping[str, Tensor]
    rows: Sequence[Mapping[str, Tensor]]
    actual: Mapping[str, Array]
    differences: Mapping[str, Difference]


def _compare_all(
    module: nn.Module,
    session: onnxruntime.InferenceSession,
    batches: Iterable[Mapping[str, Tensor]],
    spec: ExportSpec,
) -> list[_ComparedBatch]:
    compared = []
    for batch in batches:
        expected = run_network(module, batch, spec)
        actual = _run_graph(session, batch, spec)
        count = 0 if spec.batch_axis is None else row_count(batch, spec)
        rows = [select(batch, row, spec) for row in range(count)]
        for name, array in expected.items():
            _check_kind(name, array, actual[name])
        axes = _output_axes(session)
        differences = {
            name: compare(
                _within_lengths(actual[name], axes[name], rows, spec),
                _within_lengths(array, axes[name], rows, spec),
                spec.tolerance,
            )
            for name, array in expected.items()
        }
        compared.append(_ComparedBatch(batch, rows, actual, differences))
    return compared


def _run_graph(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Tensor], spec: ExportSpec
) -> dict[str, Array]:
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    return runtime.run(session, spec.outputs, arrays)


def _output_axes(session: onnxruntime.InferenceSession) -> dict[str, Axes]:
    return {output.name: output.shape for output in session.get_outputs()}


def _within_lengths(
    output: Array, axes: Axes, rows: Sequence[Mapping[str, Tensor]], spec: ExportSpec
) -> Array:
    """The output with zeros beyond each row's length."""
    if not set(axes) & set(spec.padded_axes):
        return output
    kept = np.zeros_like(output)
    for row, inputs in enumerate(rows):
        own = _cut(axes[1:], sizes(inputs, spec))
        kept[row][own] = output[row][own]
    return kept


def _cut(axes: Axes, lengths: Mapping[str, int]) -> tuple[slice, ...]:
    return tuple(slice(lengths.get(str(axis))) for axis in axes)


def _summary(compared: list[_ComparedBatch], spec: ExportSpec) -> Parity:
    # The difference of two indices is no distance; INT8 may change some, so scores are summarised.
    scores = [name for name, array in compared[0].actual.items() if array.dtype.kind == "f"]
    names = scores or list(spec.outputs)
    differences = [batch.differences[name] for batch in compared for name in names]
    return Parity(
        max_absolute=max(each.absolute for each in differences),
        max_relative=max(each.relative for each in differences),
        rows=sum(max(1, len(batch.rows)) for batch in compared),
        batch_sizes=[1] if spec.batch_axis is None else list(BATCH_SIZES),
        examples=spec.examples,
    )


def _check_rows_alone(
    session: onnxruntime.InferenceSession, compared: list[_ComparedBatch], spec: ExportSpec
) -> None:
    """Raise ParityError if a row's outputs depend on the other rows of its batch."""
    consequence = (
        "rows of unequal length may not share a batch (look at what reads the padding)"
        if spec.padded_axes
        else "requests may not share a batch (batch_axis=None serves it)"
    )
    axes = _output_axes(session)
    for batch in compared:
        if not (spec.padded_axes or 1 < len(batch.rows) <= _ROWS_ALONE):
            continue
        for row, inputs in enumerate(batch.rows):
            lengths = sizes(inputs, spec)
            for name, alone in _run_graph(session, inputs, spec).items():
                together = batch.actual[name][row][_cut(axes[name][1:], lengths)][None]
                if (
                    alone.shape == together.shape
                    and compare(alone, together, spec.tolerance).excess <= 0.0
                ):
                    continue
                padded = sizes(batch.inputs, spec)
                padding = [
                    f"{axis} {size} padded to {padded[axis]}" for axis, size in lengths.items()
                ]
                described = f" ({', '.join(padding)})" if padding else ""
                raise ParityError(
                    f"output {name}: row {row} of a batch{described} is not what it is alone, "
                    f"so {consequence}; nothing was published"
                )


def _check_kind(name: str, expected: Array, actual: Array) -> None:
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        raise ParityError(
            f"output {name}: PyTorch gives {expected.dtype} {expected.shape}, "
            f"ONNX Runtime {actual.dtype} {actual.shape}; nothing was published"
        )


def _check_differences(compared: list[_ComparedBatch], tolerance: Tolerance) -> None:
    # "not <=" instead of ">": a NaN must raise too.
    beyond = [
        (name, difference)
        for batch in compared
        for name, difference in batch.differences.items()
        if not difference.excess <= 0.0
    ]
    if not beyond:
        return
    name, worst = max(beyond, key=lambda each: np.nan_to_num(each[1].absolute, nan=np.inf))
    raise ParityError(
        f"output {name}: PyTorch and ONNX Runtime differ by "
        f"{worst.absolute:.3g} (relative {worst.relative:.3g}), allowed is "
        f"{tolerance.absolute:g} + {tolerance.relative:g} * |torch|; nothing was published"
    )
