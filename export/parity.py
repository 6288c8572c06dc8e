"""The gate: a graph is published only if it computes what the network computes.

Two numbers agree when |onnx - torch| <= absolute + relative * |torch|, as in `numpy.allclose`.
Raw outputs are compared, value by value, never only their greatest: a label may well survive an
error that moves every logit. Along padded axes they are compared within each row's length: what
stands beyond it is nobody's.

The second half of the gate is about requests that share a batch: a row alone, cut to its own length,
must give what it gives among others, padded to theirs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.bundle.contract import Parity, Tolerance
from weir.export import runtime
from weir.export.errors import ExportError, ParityError
from weir.export.samples import BATCH_SIZES, select, sizes
from weir.export.spec import ExportSpec, row_count

Array = NDArray[Any]

# Nearer to zero than this, a relative difference says nothing and is not recorded.
RELATIVE_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output is from what was expected.

    `absolute` and `relative` are the largest of their kind (`relative` where |expected| is at
    least RELATIVE_FLOOR), `excess` the largest by which a value passes the tolerance.
    """

    absolute: float
    relative: float
    excess: float


def compare(actual: Array, expected: Array, tolerance: Tolerance) -> Difference:
    """Compare two arrays of one shape; a NaN on either side gives a NaN excess."""
    is_float = np.issubdtype(expected.dtype, np.floating)
    absolute, relative = (tolerance.absolute, tolerance.relative) if is_float else (0.0, 0.0)
    got, wanted = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Equal infinities, as masked logits hold them, differ by nothing, not by NaN.
        gap = np.where(got == wanted, 0.0, np.abs(got - wanted))
        size = np.abs(wanted)
        excess = np.where(gap == 0.0, 0.0, gap - (absolute + relative * size))
    counted = (size >= RELATIVE_FLOOR) & np.isfinite(size)
    return Difference(
        absolute=float(gap.max(initial=0.0)),
        relative=float((gap[counted] / size[counted]).max(initial=0.0)),
        excess=float(excess.max(initial=0.0)),
    )


Axes = Sequence[str | int]

# Batches this small are also run row by row; with padded axes, all are.
_ROWS_ALONE = 3


def measure(
    module: nn.Module, model: bytes, batches: Iterable[Mapping[str, Tensor]], spec: ExportSpec
) -> Parity:
    """Run network and graph side by side and return how far they were apart.

    Raises:
        ParityError: beyond `spec.tolerance`, or the outputs are of another type or shape.
    """
    session = runtime.open_session(model)
    compared = _compare_all(module, session, batches, spec)
    _close_if_beyond(compared, spec.tolerance)
    _check_rows_alone(session, compared, spec)
    return _summary(compared, spec)


def record(
    module: nn.Module, model: bytes, batches: Iterable[Mapping[str, Tensor]], spec: ExportSpec
) -> Parity:
    """Return how far network and graph were apart, however far that is.

    Raises:
        ParityError: the outputs are of another type or shape, or no numbers.
    """
    compared = _compare_all(module, runtime.open_session(model), batches, spec)
    gaps = [each.absolute for batch in compared for each in batch.differences.values()]
    if not np.isfinite(gaps).all():
        raise ParityError("ONNX Runtime gives values that are no numbers; nothing was published")
    return _summary(compared, spec)


def run_network(
    module: nn.Module, inputs: Mapping[str, Tensor], spec: ExportSpec
) -> dict[str, Array]:
    """The network's own outputs, by name; it must be in eval mode.

    Raises:
        ExportError: `forward` does not return as many tensors as `spec` names.
    """
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
class _Compared:
    """One batch: what went in, what the graph gave, and how far each output is from PyTorch's.

    `rows` are the batch's rows alone, each cut to its own length; none without a batch axis.
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
) -> list[_Compared]:
    compared = []
    for batch in batches:
        expected = run_network(module, batch, spec)
        actual = _run_graph(session, batch, spec)
        count = 0 if spec.batch_axis is None else row_count(batch, spec)
        rows = [select(batch, row, spec) for row in range(count)]
        for name, wanted in expected.items():
            _check_kind(name, wanted, actual[name])
        axes = _output_axes(session)
        differences = {
            name: compare(
                _within_lengths(actual[name], axes[name], rows, spec),
                _within_lengths(wanted, axes[name], rows, spec),
                spec.tolerance,
            )
            for name, wanted in expected.items()
        }
        compared.append(_Compared(batch, rows, actual, differences))
    return compared


def _run_graph(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Tensor], spec: ExportSpec
) -> dict[str, Array]:
    given = {name: tensor.numpy() for name, tensor in inputs.items()}
    outputs = map(np.asarray, session.run(list(spec.outputs), given))
    return dict(zip(spec.outputs, outputs, strict=True))


def _output_axes(session: onnxruntime.InferenceSession) -> dict[str, Axes]:
    return {output.name: output.shape for output in session.get_outputs()}


def _within_lengths(
    output: Array, axes: Axes, rows: Sequence[Mapping[str, Tensor]], spec: ExportSpec
) -> Array:
    """The output with zeros wherever a row has ended."""
    if not set(axes) & set(spec.padded_axes):
        return output
    kept = np.zeros_like(output)
    for row, inputs in enumerate(rows):
        own = _cut(axes[1:], sizes(inputs, spec))
        kept[row][own] = output[row][own]
    return kept


def _cut(axes: Axes, lengths: Mapping[str, int]) -> tuple[slice, ...]:
    return tuple(slice(lengths.get(str(axis))) for axis in axes)


def _summary(compared: list[_Compared], spec: ExportSpec) -> Parity:
    # An index that changes is no distance: where INT8 may change some, the scores say how far it is.
    numbers = [name for name, array in compared[0].actual.items() if array.dtype.kind == "f"]
    named = numbers or list(spec.outputs)
    differences = [batch.differences[name] for batch in compared for name in named]
    return Parity(
        max_absolute=max(each.absolute for each in differences),
        max_relative=max(each.relative for each in differences),
        rows=sum(max(1, len(batch.rows)) for batch in compared),
        batch_sizes=[1] if spec.batch_axis is None else list(BATCH_SIZES),
        examples=spec.examples,
    )


def _check_rows_alone(
    session: onnxruntime.InferenceSession, compared: list[_Compared], spec: ExportSpec
) -> None:
    """Each row alone gives what it gives in the batch, or callers would get each other's data."""
    axes = _output_axes(session)
    for batch in compared:
        if not (spec.padded_axes or 1 < len(batch.rows) <= _ROWS_ALONE):
            continue
        for row, inputs in enumerate(batch.rows):
            lengths = sizes(inputs, spec)
            for name, alone in _run_graph(session, inputs, spec).items():
                together = batch.actual[name][row][_cut(axes[name][1:], lengths)][None]
                if _agree(alone, together, spec):
                    continue
                raise ParityError(
                    f"output {name}: row {row} of a batch{_told(lengths, batch, spec)} is not what "
                    f"it is alone, so {_consequence(spec)}; nothing was published"
                )


def _consequence(spec: ExportSpec) -> str:
    if spec.padded_axes:
        return "rows of unequal length may not share a batch (look at what reads the padding)"
    return "requests may not share a batch (batch_axis=None serves it)"


def _agree(alone: Array, together: Array, spec: ExportSpec) -> bool:
    return alone.shape == together.shape and compare(alone, together, spec.tolerance).excess <= 0.0


def _told(lengths: Mapping[str, int], batch: _Compared, spec: ExportSpec) -> str:
    """How long a row is, and how long it was made."""
    padded = sizes(batch.inputs, spec)
    told = [f"{axis} {length} padded to {padded[axis]}" for axis, length in lengths.items()]
    return f" ({', '.join(told)})" if told else ""


def _check_kind(name: str, expected: Array, actual: Array) -> None:
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        raise ParityError(
            f"output {name}: PyTorch gives {expected.dtype} {expected.shape}, "
            f"ONNX Runtime {actual.dtype} {actual.shape}; nothing was published"
        )


def _close_if_beyond(compared: list[_Compared], tolerance: Tolerance) -> None:
    # "not <=" rather than ">": a NaN must close the gate too.
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
