"""The server: gRPC in front, ONNX Runtime behind, batching between, metrics beside."""

import os

# ONNX Runtime on Linux, since 1.30, would tell Microsoft of each process, session and model, and keep an identifier of
# the machine; it asks this when it is first imported. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
