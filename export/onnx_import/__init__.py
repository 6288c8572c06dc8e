"""Import of an ONNX file of another exporter into a published bundle; imports no torch."""
