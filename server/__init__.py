"""The server: gRPC in front, ONNX Runtime behind, batching between, metrics beside."""
