"""Static INT8 quantisation of an imported graph, measured by the classes of its FP32 graph."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from weir.bundle.contract import Quantisation
from weir.export import accuracy, runtime, static_quantisation
from weir.export.errors import ExportError
from weir.export.onnx_import import axes
from weir.export.onnx_import.batching import Proved
from weir.export.onnx_import.candidate import Candidate, checked
from weir.export.onnx_import.examples import BATCH
from weir.export.onnx_import.parity_gate import Gate
from weir.export.onnx_import.spec import Int8

Array = NDArray[Any]


def quantise(proved: Proved, candidate: Candidate, settings: Int8) -> tuple[Proved, Quantisation]:
    """The graph in INT8, compared with the file and with the classes of its FP32 graph."""
    gate = proved.gate
    if candidate.external_data:
        raise ExportError("int8: expected weights of less than 2 GiB, got more")
    if not proved.is_batched or candidate.padded is not None:
        raise ExportError("int8: expected a model with rows of one size, got another")
    specs = {each.name: each for each in gate.sampler.inputs}
    if settings.calibration.keys() != specs.keys():
        raise ExportError(
            f"calibration: expected the inputs {sorted(specs)}, got {sorted(settings.calibration)}"
        )
    rows = checked(settings.calibration, specs, "calibration")
    for name, array in rows.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ExportError(
                f"calibration: expected finite numbers for {name}, got NaN or infinity"
            )
    output = settings.output or _scores(candidate, gate)
    if gate.axes[output][-1:] == (BATCH,):
        raise ExportError(f"int8: expected an output of scores [batch, classes], got {output!r}")
    data = static_quantisation.quantise(static_quantisation.preprocess(proved.data), _batches(rows))
    first = next(_batches(rows))
    floats = [
        each.name
        for each in axes.declared_outputs(onnx.load_from_string(data)).values()
        if each.dtype.kind == "f"
    ]
    tolerance = static_quantisation.fusion_tolerance(data, first, floats)
    answers = np.concatenate([gate.run(batch)[output].argmax(axis=-1) for batch in _batches(rows)])
    count = len(next(iter(rows.values())))
    cost = Quantisation(
        method="static",
        before=1.0,
        after=accuracy.measure(data, _batches(rows), answers, output),
        calibration=settings.calibration_from,
        calibration_rows=count,
        test=f"rows of {settings.calibration_from}, with the answers of the FP32 graph",
        test_rows=count,
    )
    accuracy.check_drop(cost, settings.max_drop)
    reduced = replace(gate, session=runtime.open_session(data))
    proof = reduced.record(_batches(rows), tolerance, proved.proof)
    candidate.changes.append(f"weights and activations are INT8, calibrated on {count} rows")
    return replace(proved, data=data, gate=reduced, proof=proof), cost


def _scores(candidate: Candidate, gate: Gate) -> str:
    if candidate.preprocessing is not None:
        return candidate.preprocessing.output
    fitting = [
        name for name, own in gate.axes.items() if len(own) > 1 and name in candidate.labels
    ] or [name for name, own in gate.axes.items() if len(own) == 2]
    if len(fitting) != 1:
        raise ExportError(
            f"int8: expected one output with labels, to compare classes by, got {sorted(gate.axes)}"
        )
    return fitting[0]


def _batches(rows: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    count = len(next(iter(rows.values())))
    size = static_quantisation.BATCH_ROWS
    for first in range(0, count, size):
        yield {name: array[first : first + size] for name, array in rows.items()}
