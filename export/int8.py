"""INT8 quantisation of a graph: static, with ranges of training rows, or dynamic without.

Rules:

- Static: weights are quantised per channel and activations per tensor, with ranges from training
  rows. ONNX Runtime fuses the QuantizeLinear and DequantizeLinear nodes into integer kernels.
- Static on a graph with LSTM layers quantises these only (`lstm_quantisation`): they are most of
  the work. A row's result does not depend on the other rows of its batch.
- Dynamic: LSTM layers and matrix products only. Activations are quantised in each run, by their
  range in the batch. There is no calibration. The last digits of a row depend on its batch.
- GRU and RNN are rejected: ONNX Runtime has an integer kernel for LSTM only, and the other layers
  of such a network gain little.
- Weights get 7 bits. With 8, processors without VNNI add products in 16 bits, which overflow
  without an error: the same file would be right on one machine and wrong on another.
- Static leaves normalisation and logits in FP32: they cost little, and rounded logits would tie.
- The golden outputs are those of the quantised graph on this machine. PyTorch's differ by more than
  two machines do, and would only show that INT8 is not FP32.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from weir.bundle.contract import Quantisation, Tolerance
from weir.bundle.golden import Golden
from weir.export import accuracy, lstm_quantisation, runtime, static_quantisation
from weir.export.accuracy import DEFAULT_MAX_DROP
from weir.export.errors import ExportError
from weir.export.samples import shrink
from weir.export.spec import ExportCandidate, ExportSpec, row_count

CALIBRATION_ROWS = 512

_STATIC_BATCH_ROWS, _DYNAMIC_BATCH_ROWS = static_quantisation.BATCH_ROWS, 32
_DYNAMIC_OPERATORS = ("LSTM", "MatMul", "Gemm")
_WITHOUT_KERNEL = ("GRU", "RNN")

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticInt8:
    """Data of static quantisation: rows to calibrate with, and rows to measure accuracy on.

    Attributes:
        calibration: rows of the training data, by input.
        calibration_from: a description of them, for the record.
        test: rows outside the training data, by input, padded to the longest.
        test_from: a description of them, for the record.
        answers: the right index of each test row, (rows,), or of each step, (rows, steps) with
            `accuracy.NO_ANSWER` beyond a row's length.
        output: the scores; their argmax along the last axis is the answer.
        max_drop: the accuracy that may be lost, in percentage points.
    """

    calibration: Mapping[str, Array]
    calibration_from: str
    test: Mapping[str, Array]
    test_from: str
    answers: NDArray[np.int64]
    output: str
    max_drop: float = DEFAULT_MAX_DROP


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicInt8:
    """Data of dynamic quantisation: rows to measure accuracy on, as in `StaticInt8`."""

    test: Mapping[str, Array]
    test_from: str
    answers: NDArray[np.int64]
    output: str = "logits"
    max_drop: float = DEFAULT_MAX_DROP


def quantise(
    exact: ExportCandidate, settings: StaticInt8 | DynamicInt8, spec: ExportSpec
) -> ExportCandidate:
    """Quantise the FP32 graph; the result still has its `parity`.

    ExportError if dynamic quantisation does not fit the layers; AccuracyError if too much is lost.
    """
    kinds = {node.op_type for node in onnx.load_from_string(exact.model).graph.node}
    if found := sorted(kinds & set(_WITHOUT_KERNEL)):
        raise ExportError(
            f"int8: ONNX Runtime has an integer kernel for LSTM and none for {', '.join(found)}: "
            "train an LSTM, or publish fp32"
        )
    # An index is left out: equal scores may change places on another processor.
    outputs = [name for name, array in exact.golden.outputs.items() if array.dtype.kind == "f"]
    if isinstance(settings, StaticInt8):
        module = lstm_quantisation if "LSTM" in kinds else static_quantisation
        batches = _batches(settings.calibration, spec, _STATIC_BATCH_ROWS)
        model = module.quantise(exact.model, batches)
        cost = _cost(exact.model, model, settings, spec)
        first = next(_batches(settings.calibration, spec, _STATIC_BATCH_ROWS))
        tolerance = static_quantisation.fusion_tolerance(model, first, outputs)
    else:
        model = _quantise_dynamic(exact.model)
        cost = _cost(exact.model, model, settings, spec)
        tolerance = _batch_tolerance(model, settings.test, outputs, spec)
    inputs = exact.golden.inputs
    return replace(
        exact,
        model=model,
        precision="int8",
        # ONNX Runtime has no integer kernels for these nodes on CUDA; FP32 is faster there.
        providers=("cpu",),
        tolerance=tolerance,
        golden=Golden(inputs, runtime.run(runtime.open_session(model), outputs, inputs)),
        quantisation=cost,
    )


def _cost(
    exact: bytes, model: bytes, settings: StaticInt8 | DynamicInt8, spec: ExportSpec
) -> Quantisation:
    """Accuracy before and after; AccuracyError if it falls too far."""
    static = settings if isinstance(settings, StaticInt8) else None
    rows = _STATIC_BATCH_ROWS if static else _DYNAMIC_BATCH_ROWS
    before, after = (
        accuracy.measure(
            each, _batches(settings.test, spec, rows), settings.answers, settings.output
        )
        for each in (exact, model)
    )
    cost = Quantisation(
        method="static" if static else "dynamic",
        before=before,
        after=after,
        calibration=static.calibration_from if static else None,
        calibration_rows=row_count(_tensors(static.calibration), spec) if static else None,
        test=settings.test_from,
        test_rows=row_count(_tensors(settings.test), spec),
    )
    accuracy.check_drop(cost, settings.max_drop)
    return cost


def _quantise_dynamic(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    if not {node.op_type for node in proto.graph.node} & set(_DYNAMIC_OPERATORS):
        raise ExportError(
            f"int8: expected a layer of {', '.join(_DYNAMIC_OPERATORS)}, the graph has none"
        )
    # The quantiser transposes weights when it turns a Gemm into a MatMul; recorded shapes differ.
    del proto.graph.value_info[:]

    def quantise(proto: onnx.ModelProto, path: Path) -> None:
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=list(_DYNAMIC_OPERATORS),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )

    return static_quantisation.run_quantiser(proto, quantise)


def _batch_tolerance(
    model: bytes, rows: Mapping[str, Array], outputs: Sequence[str], spec: ExportSpec
) -> Tolerance:
    """The larger of a step of 256 of the widest output, and twice the effect of batching.

    Other rows of a batch widen the steps to which a row's values are rounded. The last digits of
    another processor have the same effect.
    """
    session = runtime.open_session(model)
    batch = next(_batches(rows, spec, _DYNAMIC_BATCH_ROWS))
    together = runtime.run(session, outputs, batch)
    step = max(float(np.ptp(array)) for array in together.values()) / 255.0
    gap = 0.0
    for row, inputs in enumerate(_batches(batch, spec, 1)):
        for name, array in runtime.run(session, outputs, inputs).items():
            padded = together[name][row]
            own = padded[tuple(map(slice, array[0].shape))]
            gap = max(gap, float(np.abs(array[0] - own).max()))
    return Tolerance(absolute=max(step, 2.0 * gap), relative=1e-3)


def _batches(
    rows: Mapping[str, Array], spec: ExportSpec, batch_rows: int
) -> Iterator[dict[str, Array]]:
    """All rows in order; each batch is cut to its longest row."""
    tensors = _tensors(rows)
    for first in range(0, row_count(tensors, spec), batch_rows):
        part = {name: tensor[first : first + batch_rows] for name, tensor in tensors.items()}
        yield {name: tensor.numpy() for name, tensor in shrink(part, spec).items()}


def _tensors(rows: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    # torch warns of arrays that are read-only, as some data sets' are.
    return {
        name: torch.from_numpy(np.require(array, requirements="W")) for name, array in rows.items()
    }
