"""Operator profile of an ONNX graph, by ONNX Runtime's own profiler, with what is avoidable in it.

Needs ONNX Runtime and no `onnx`.
"""

import os

# Importing ONNX Runtime would otherwise write files into the home and send reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
