"""Inspection of a network: weight sharing, the first kernels, and the feature maps of a picture.

Needs `onnx`; feature maps also need ONNX Runtime and the server's picture decoder.
"""

import os

# Importing ONNX Runtime would otherwise write files into the home and send reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
