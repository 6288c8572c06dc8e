"""Model of Triton's Python backend for any ONNX graph: one run per batch of Triton.

`benchmarks/lib/triton.py` copies it into the model repository, beside `model.onnx`. Triton's
dynamic batcher batches requests of equal shapes only. It has no padding; `allow_ragged_batch`
leaves padding to the model.
"""

import os
import sys
from pathlib import Path
from typing import Any

# The interpreter inside Triton has no site-packages.
sys.path.insert(0, os.environ["PYTHONPATH"].split(os.pathsep)[0])

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonPythonModel:
    """The model that Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph, on one thread, with the options that Weir sets."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests of equal shapes with one run."""
        inputs = {name: _joined(requests, name) for name in self._inputs}
        outputs = self._session.run(self._outputs, inputs)
        responses, start = [], 0
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, self._inputs[0]).shape()[0]
            tensors = [
                pb_utils.Tensor(name, array[start : start + rows])
                for name, array in zip(self._outputs, outputs, strict=True)
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
            start += rows
        return responses


def _joined(requests: list[Any], name: str) -> np.ndarray[Any, Any]:
    arrays = [pb_utils.get_input_tensor_by_name(each, name).as_numpy() for each in requests]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
