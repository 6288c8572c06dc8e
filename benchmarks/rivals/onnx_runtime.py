"""MLServer runtime for any ONNX graph, as its documentation shows one.

`benchmarks/lib/mlserver.py` copies it beside `model.onnx` and `model-settings.json`. MLServer's
adaptive batching merges requests before `predict`. A run is short, so it happens in the event loop.
"""

import mlserver  # type: ignore[import-not-found]
import onnxruntime as ort
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from prometheus_client import Summary


class OnnxRuntime(mlserver.MLModel):  # type: ignore[misc]
    """The runtime that MLServer calls."""

    async def load(self) -> bool:
        """Load the graph, on one thread, with the options that Weir sets."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = await mlserver.utils.get_model_uri(self.settings)
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._runs = Summary("onnx_run_seconds", "Seconds of a run of the graph.")
        return True

    async def predict(self, payload: mlserver.types.InferenceRequest) -> object:
        """Answer one request, or the merge of several."""
        inputs = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        with self._runs.time():
            outputs = self._session.run(self._outputs, inputs)
        return mlserver.types.InferenceResponse(
            model_name=self.name,
            outputs=[
                NumpyCodec.encode_output(name, array)
                for name, array in zip(self._outputs, outputs, strict=True)
            ],
        )
