"""The gate: a graph is published only if it computes what the network computes.

Two numbers agree when |onnx - torch| <= absolute + relative * |torch|, as in `numpy.allclose`.
Raw outputs are compared, value by value, never only their greatest: a label may well survive an
error that moves every logit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.contract import Parity, Tolerance
from export.errors import ExportError, ParityError
from export.samples import BATCH_SIZES
from export.spec import ExportSpec, row_count

# Nearer to zero than this, a relative difference says nothing and is not recorded.
RELATIVE_FLOOR = 1e-3
RUNTIME_VERSION: str = onnxruntime.__version__
# Batches this small are also run row by row.
_ROWS_ALONE = 3
_PROVIDERS = ["CPUExecutionProvider"]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output is from what was expected.

    `absolute` and `relative` are the largest of their kind (`relative` where |expected| is at
    least RELATIVE_FLOOR), `excess` the largest by which a value passes the tolerance.
    """

    absolute: float
    relative: float
    excess: float


def measure(
    module: nn.Module, model: bytes, batches: Iterable[Mapping[str, Tensor]], spec: ExportSpec
) -> Parity:
    """Run network and graph side by side and return how far they were apart.

    Raises:
        ParityError: beyond `spec.tolerance`, or the outputs are of another type or shape.
    """
    session = _open(model)
    differences: list[tuple[str, Difference]] = []
    small: list[tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]] = []
    rows = 0
    for batch in batches:
        expected = run_network(module, batch, spec)
        inputs = {name: tensor.numpy() for name, tensor in batch.items()}
        actual = session.run(list(spec.outputs), inputs)
        rows += row_count(batch, spec)
        if spec.batch_axis is not None and 1 < row_count(batch, spec) <= _ROWS_ALONE:
            small.append((inputs, actual))
        for (name, wanted), got in zip(expected.items(), actual, strict=True):
            _check_kind(name, wanted, np.asarray(got))
            differences.append((name, compare(np.asarray(got), wanted, spec.tolerance)))
    _close_if_beyond(differences, spec.tolerance)
    for inputs, together in small:
        _check_rows(session, inputs, together, spec)
    return Parity(
        max_absolute=max(difference.absolute for _, difference in differences),
        max_relative=max(difference.relative for _, difference in differences),
        rows=rows,
        batch_sizes=[1] if spec.batch_axis is None else list(BATCH_SIZES),
        examples=spec.examples,
    )


def run_network(
    module: nn.Module, inputs: Mapping[str, Tensor], spec: ExportSpec
) -> dict[str, NDArray[Any]]:
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


def compare(actual: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance) -> Difference:
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


def _open(model: bytes) -> onnxruntime.InferenceSession:
    session = onnxruntime.InferenceSession(model, providers=_PROVIDERS)
    if session.get_providers() != _PROVIDERS:
        raise ExportError(f"providers: expected {_PROVIDERS}, got {session.get_providers()}")
    return session


def _check_rows(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, NDArray[Any]],
    together: Sequence[NDArray[Any]],
    spec: ExportSpec,
) -> None:
    """Each row alone gives what it gives in the batch, or callers would get each other's data."""
    for row in range(len(together[0])):
        one = {name: array[row : row + 1] for name, array in inputs.items()}
        alone = session.run(list(spec.outputs), one)
        for name, whole, single in zip(spec.outputs, together, alone, strict=True):
            if not compare(single, whole[row : row + 1], spec.tolerance).excess <= 0.0:
                raise ParityError(
                    f"output {name}: row {row} of a batch is not what it is alone, so requests may "
                    f"not share a batch (batch_axis=None serves it); nothing was published"
                )


def _check_kind(name: str, expected: NDArray[Any], actual: NDArray[Any]) -> None:
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        raise ParityError(
            f"output {name}: PyTorch gives {expected.dtype} {expected.shape}, "
            f"ONNX Runtime {actual.dtype} {actual.shape}; nothing was published"
        )


def _close_if_beyond(differences: list[tuple[str, Difference]], tolerance: Tolerance) -> None:
    # "not <=" rather than ">": a NaN must close the gate too.
    beyond = [item for item in differences if not item[1].excess <= 0.0]
    if not beyond:
        return
    name, worst = max(beyond, key=lambda item: np.nan_to_num(item[1].absolute, nan=np.inf))
    raise ParityError(
        f"output {name}: PyTorch and ONNX Runtime differ by {worst.absolute:.3g} "
        f"(relative {worst.relative:.3g}), allowed is {tolerance.absolute:g} + "
        f"{tolerance.relative:g} * |torch|; nothing was published"
    )
