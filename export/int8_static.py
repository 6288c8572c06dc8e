"""A graph in 8-bit integers: ranges from training data, accuracy before and after on test data.

Rules:

- Weights are quantised a channel at a time, activations a tensor at a time, between QuantizeLinear
  and DequantizeLinear nodes, which ONNX Runtime fuses into integer kernels.
- Weights get 7 bits. With 8, processors without VNNI add products up in 16 bits, which overflow
  without a word: one file would then be right on one machine and wrong on the next.
- Normalisation and logits stay in FP32: nothing is saved there, and equal logits would have no order.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from weir.bundle.contract import Quantisation, Tolerance
from weir.bundle.golden import Golden
from weir.export import accuracy, runtime
from weir.export.accuracy import DEFAULT_MAX_DROP
from weir.export.spec import ExportCandidate

CALIBRATION_ROWS = 512

_BATCH_ROWS = 64
_WORKING = ("Conv", "Gemm", "MatMul")
_QUANTISED = (*_WORKING, "Relu", "Clip", "MaxPool", "AveragePool", "Concat", "Add")
_READY = ("onnx.quant.pre_process", "onnxruntime.quant")

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticInt8:
    """What quantisation is fitted to, and what it is judged by.

    Attributes:
        calibration: rows of the training data, by input.
        calibration_from: what they are.
        test: rows that were not trained on, by input.
        test_from: what they are.
        answers: the right index of each test row, (rows,).
        output: the one whose greatest value along its last axis is the answer.
        max_drop: how many points of accuracy may be lost.
    """

    calibration: Mapping[str, Array]
    calibration_from: str
    test: Mapping[str, Array]
    test_from: str
    answers: NDArray[np.int64]
    output: str
    max_drop: float = DEFAULT_MAX_DROP


def quantise(exact: ExportCandidate, fitting: StaticInt8) -> ExportCandidate:
    """The graph in INT8; its `parity` is still that of `exact`.

    The golden outputs are the quantised graph's own on this machine: PyTorch's are further away
    than any two machines are from each other, and would only show that INT8 is not FP32. How far
    machines may differ is measured too (see `_tolerance`).

    Raises:
        AccuracyError: more than `fitting.max_drop` points of accuracy are lost.
    """
    model = _quantise(exact.model, fitting.calibration)
    cost = Quantisation(
        before=_measure(exact.model, fitting),
        after=_measure(model, fitting),
        calibration=fitting.calibration_from,
        calibration_rows=_count(fitting.calibration),
        test=fitting.test_from,
        test_rows=_count(fitting.test),
    )
    accuracy.check_drop(cost, fitting.max_drop)
    inputs = exact.golden.inputs
    return replace(
        exact,
        model=model,
        precision="int8",
        # On CUDA, ONNX Runtime has no integer kernels for these nodes: it would run slower than FP32.
        providers=("cpu",),
        tolerance=_tolerance(model, fitting.calibration, list(exact.golden.outputs)),
        golden=Golden(inputs, _run(model, inputs, list(exact.golden.outputs))),
        quantisation=cost,
    )


def _quantise(model: bytes, calibration: Mapping[str, Array]) -> bytes:
    proto = onnx.load_from_string(model)
    # The exporter has folded and inferred already what the preprocessing would.
    proto.metadata_props.add(key=_READY[0], value=_READY[1])
    kinds = [node.op_type for node in proto.graph.node]
    first = min((kinds.index(kind) for kind in _WORKING if kind in kinds), default=0)
    with tempfile.TemporaryDirectory(prefix="weir-int8-") as directory:
        path = Path(directory) / "model.onnx"
        quantize_static(
            proto,
            path,
            _Reader(calibration),
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=[node.name for node in proto.graph.node[:first]],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        quantised = onnx.load(path)
    del quantised.metadata_props[:]
    onnx.checker.check_model(quantised, full_check=True)
    return quantised.SerializeToString()


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands out the calibration rows, a batch at a time."""

    def __init__(self, rows: Mapping[str, Array]) -> None:
        self._batches = _batches(rows)

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


def _measure(model: bytes, fitting: StaticInt8) -> float:
    return accuracy.measure(model, _batches(fitting.test), fitting.answers, fitting.output)


def _tolerance(model: bytes, rows: Mapping[str, Array], outputs: Sequence[str]) -> Tolerance:
    """A step of 256 of the widest output, or twice what unfused nodes differ by where that is more.

    A value on the edge between two steps falls to either side by its last bit, which is another
    processor's to decide as it is the unfused nodes'; what follows carries that on.
    """
    inputs = next(_batches(rows))
    fused = _run(model, inputs, outputs)
    single = _run(model, inputs, outputs, is_optimised=False)
    step = max(float(np.ptp(fused[name])) for name in outputs) / 255.0
    gap = max(float(np.abs(fused[name] - single[name]).max()) for name in outputs)
    return Tolerance(absolute=max(step, 2.0 * gap), relative=1e-3)


def _run(
    model: bytes, inputs: Mapping[str, Array], outputs: Sequence[str], *, is_optimised: bool = True
) -> dict[str, Array]:
    session = runtime.open_session(model, is_optimised=is_optimised)
    return dict(zip(outputs, session.run(list(outputs), dict(inputs)), strict=True))


def _batches(rows: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    for first in range(0, _count(rows), _BATCH_ROWS):
        yield {name: array[first : first + _BATCH_ROWS] for name, array in rows.items()}


def _count(rows: Mapping[str, Array]) -> int:
    return len(next(iter(rows.values())))
