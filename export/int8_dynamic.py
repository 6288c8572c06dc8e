"""A graph over sequences with weights of 8 bits: LSTM layers and matrix products, nothing else.

Rules:

- Weights are quantised beforehand, activations in each run, from their least and greatest values in
  the batch. So there is nothing to calibrate, and a row's last digits depend on its neighbours.
- ONNX Runtime has an integer kernel for LSTM and none for GRU and RNN: those are refused, since what
  is left of such a network is hardly worth it.
- Weights get 7 bits, as in `int8`.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from weir.bundle.contract import Quantisation, Tolerance
from weir.bundle.golden import Golden
from weir.export import accuracy, runtime
from weir.export.accuracy import DEFAULT_MAX_DROP
from weir.export.errors import ExportError
from weir.export.samples import select, shrink
from weir.export.spec import ExportCandidate, ExportSpec, row_count

_BATCH_ROWS = 32
_QUANTISED = ("LSTM", "MatMul", "Gemm")
_WITHOUT_KERNEL = ("GRU", "RNN")
_READY = ("onnx.quant.pre_process", "onnxruntime.quant")

Array = NDArray[Any]
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicInt8:
    """What dynamic quantisation is judged by.

    Attributes:
        test: rows that were not trained on, by input, filled up to the longest.
        test_from: what they are.
        answers: the right index of each row, (rows,), or of each step, (rows, steps) with
            `accuracy.NO_ANSWER` beyond a row's length.
        output: the one whose greatest value along its last axis is the answer.
        max_drop: how many points of accuracy may be lost.
    """

    test: Mapping[str, Array]
    test_from: str
    answers: NDArray[np.int64]
    output: str = "logits"
    max_drop: float = DEFAULT_MAX_DROP


def quantise(exact: ExportCandidate, fitting: DynamicInt8, spec: ExportSpec) -> ExportCandidate:
    """The graph in INT8; its `parity` is still that of `exact`.

    The golden outputs are the quantised graph's own, as in `int8.quantise`, and only those of real
    numbers: two equal scores may change places on another processor, and an index with them.

    Raises:
        ExportError: the graph has a layer that stays as it is, or none to quantise.
        AccuracyError: more than `fitting.max_drop` points of accuracy are lost.
    """
    _check_layers(exact.model)
    model = _quantise(exact.model)
    rows = {name: torch.from_numpy(array) for name, array in fitting.test.items()}
    cost = Quantisation(
        method="dynamic",
        before=_measure(exact.model, rows, fitting, spec),
        after=_measure(model, rows, fitting, spec),
        test=fitting.test_from,
        test_rows=row_count(rows, spec),
    )
    accuracy.check_drop(cost, fitting.max_drop)
    inputs = exact.golden.inputs
    names = [name for name, array in exact.golden.outputs.items() if array.dtype.kind == "f"]
    outputs = _run(runtime.open_session(model), names, inputs)
    return replace(
        exact,
        model=model,
        precision="int8",
        # On CUDA, ONNX Runtime has no integer kernels for these nodes.
        providers=("cpu",),
        tolerance=_tolerance(model, next(_batches(rows, spec)), names, spec),
        golden=Golden(inputs, outputs),
        quantisation=cost,
    )


def _check_layers(model: bytes) -> None:
    kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
    if found := sorted(kinds & set(_WITHOUT_KERNEL)):
        raise ExportError(
            f"int8: ONNX Runtime has an integer kernel for LSTM and none for {', '.join(found)}: "
            "train an LSTM, or stay with fp32"
        )
    if not kinds & set(_QUANTISED):
        raise ExportError(f"int8: expected a layer of {', '.join(_QUANTISED)}, the graph has none")


def _quantise(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    # The exporter has folded and inferred already what the preprocessing would.
    proto.metadata_props.add(key=_READY[0], value=_READY[1])
    # Shapes of weights among them, which it turns over where it makes a MatMul of a Gemm.
    del proto.graph.value_info[:]
    with tempfile.TemporaryDirectory(prefix="weir-int8-") as directory:
        path = Path(directory) / "model.onnx"
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(path)
    del quantised.metadata_props[:]
    onnx.checker.check_model(quantised, full_check=True)
    return quantised.SerializeToString()


def _measure(model: bytes, rows: Tensors, fitting: DynamicInt8, spec: ExportSpec) -> float:
    batches = (_arrays(batch) for batch in _batches(rows, spec))
    return accuracy.measure(model, batches, fitting.answers, fitting.output)


def _tolerance(model: bytes, batch: Tensors, outputs: Sequence[str], spec: ExportSpec) -> Tolerance:
    """A step of 256 of the widest output, or twice what neighbours change, where that is more.

    Neighbours widen the steps that a row's values are rounded to: it is the same effect that the
    last digits of another processor have.
    """
    session = runtime.open_session(model)
    together = _run(session, outputs, _arrays(batch))
    step = max(float(np.ptp(array)) for array in together.values()) / 255.0
    gap = 0.0
    for row in range(row_count(batch, spec)):
        alone = select(batch, row, spec)
        for name, array in _run(session, outputs, _arrays(alone)).items():
            gap = max(gap, float(np.abs(array[0] - _own(together[name][row], array[0])).max()))
    return Tolerance(absolute=max(step, 2.0 * gap), relative=1e-3)


def _own(padded: Array, alone: Array) -> Array:
    """The part of a padded row that it has alone."""
    part: Array = padded[tuple(map(slice, alone.shape))]
    return part


def _run(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, Array]
) -> dict[str, Array]:
    return dict(zip(outputs, session.run(list(outputs), dict(inputs)), strict=True))


def _batches(rows: Tensors, spec: ExportSpec) -> Iterator[dict[str, torch.Tensor]]:
    """All rows in their order, each batch cut to its longest."""
    for first in range(0, row_count(rows, spec), _BATCH_ROWS):
        part = {name: tensor[first : first + _BATCH_ROWS] for name, tensor in rows.items()}
        yield shrink(part, spec)


def _arrays(tensors: Tensors) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
