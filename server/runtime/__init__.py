"""ONNX Runtime sessions and the tensors that go through them."""
