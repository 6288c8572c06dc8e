"""The gate: a graph is published only if it computes what the network computes.

Two numbers agree when |onnx - torch| <= absolute + relative * |torch|, as in `numpy.allclose`.
Raw outputs are compared, value by value, never only their greatest: a label may well survive an
error that moves every logit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.contract import Parity, Tolerance
from export import runtime
from export.errors import ExportError, ParityError
from export.samples import BATCH_SIZES
from export.spec import ExportSpec, row_count

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


def measure(
    module: nn.Module, model: bytes, batches: Iterable[Mapping[str, Tensor]], spec: ExportSpec
) -> Parity:
    """Run network and graph side by side and return how far they were apart.

    Raises:
        ParityError: beyond `spec.tolerance`, or the outputs are of another type or shape.
    """
    differences = _compare_all(module, model, batches, spec)
    _close_if_beyond(differences, spec.tolerance)
    return _summary(differences, spec)


def record(
    module: nn.Module, model: bytes, batches: Iterable[Mapping[str, Tensor]], spec: ExportSpec
) -> Parity:
    """Return how far network and graph were apart, however far that is.

    Raises:
        ParityError: the outputs are of another type or shape, or no numbers.
    """
    compared = _compare_all(module, model, batches, spec)
    if not all(np.isfinite(each.difference.absolute) for each in compared):
        raise ParityError("ONNX Runtime gives values that are no numbers; nothing was published")
    return _summary(compared, spec)


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


@dataclass(frozen=True, slots=True)
class _Compared:
    """One output of one batch."""

    output: str
    rows: int
    difference: Difference


def _compare_all(
    module: nn.Module, model: bytes, batches: Iterable[Mapping[str, Tensor]], spec: ExportSpec
) -> list[_Compared]:
    session = runtime.open_session(model)
    compared = []
    for batch in batches:
        expected = run_network(module, batch, spec)
        inputs = {name: tensor.numpy() for name, tensor in batch.items()}
        actual = session.run(list(spec.outputs), inputs)
        rows = row_count(batch, spec)
        for (name, wanted), got in zip(expected.items(), map(np.asarray, actual), strict=True):
            _check_kind(name, wanted, got)
            compared.append(_Compared(name, rows, compare(got, wanted, spec.tolerance)))
    return compared


def _summary(compared: list[_Compared], spec: ExportSpec) -> Parity:
    first = spec.outputs[0]
    return Parity(
        max_absolute=max(each.difference.absolute for each in compared),
        max_relative=max(each.difference.relative for each in compared),
        rows=sum(each.rows for each in compared if each.output == first),
        batch_sizes=[1] if spec.batch_axis is None else list(BATCH_SIZES),
        examples=spec.examples,
    )


def _check_kind(name: str, expected: NDArray[Any], actual: NDArray[Any]) -> None:
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        raise ParityError(
            f"output {name}: PyTorch gives {expected.dtype} {expected.shape}, "
            f"ONNX Runtime {actual.dtype} {actual.shape}; nothing was published"
        )


def _close_if_beyond(compared: list[_Compared], tolerance: Tolerance) -> None:
    # "not <=" rather than ">": a NaN must close the gate too.
    beyond = [each for each in compared if not each.difference.excess <= 0.0]
    if not beyond:
        return
    worst = max(beyond, key=lambda each: np.nan_to_num(each.difference.absolute, nan=np.inf))
    raise ParityError(
        f"output {worst.output}: PyTorch and ONNX Runtime differ by "
        f"{worst.difference.absolute:.3g} (relative {worst.difference.relative:.3g}), allowed is "
        f"{tolerance.absolute:g} + {tolerance.relative:g} * |torch|; nothing was published"
    )
