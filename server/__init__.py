"""The inference server: gRPC, batching, ONNX Runtime, metrics."""

import os

# ONNX Runtime on Linux, since 1.30, reports each process, session and model to Microsoft, and keeps
# an identifier of the machine. It reads this variable when it is first imported; 0 turns it on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
