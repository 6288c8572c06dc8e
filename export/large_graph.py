"""Graphs with weights of 2 GiB and more: their weights in a file beside the graph."""

import tempfile
from pathlib import Path

import onnx

DATA = "model.onnx.data"
"""The file of the weights of a large graph."""

MOST_INSIDE_BYTES = (1 << 31) - (1 << 24)
"""The most bytes of weights inside a graph: protobuf ends at 2 GiB, and the nodes need some."""

# Smaller tensors stay inside: shapes are made of them.
_MOST_INSIDE_TENSOR = 4096


def weight_bytes(model: onnx.ModelProto) -> int:
    """The bytes of the weights inside a graph."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def take_out_weights(model: onnx.ModelProto) -> bytes:
    """Replace the weights by references to the file DATA; its contents."""
    weights = []
    offset = 0
    for tensor in model.graph.initializer:
        weight = tensor.raw_data
        if len(weight) <= _MOST_INSIDE_TENSOR:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", DATA), ("offset", offset), ("length", len(weight))):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(weight)
        offset += len(weight)
    return b"".join(weights)


def check_file(model: onnx.ModelProto, *, infers_shapes: bool) -> None:
    """Check a graph; ValidationError if it is not valid.

    For a graph with external data, the checker needs the file to exist and does not read it.
    """
    locations = {tensor.data_location for tensor in model.graph.initializer}
    if onnx.TensorProto.EXTERNAL not in locations:
        onnx.checker.check_model(model, full_check=infers_shapes)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        path.with_name(DATA).touch()
        onnx.checker.check_model(str(path), full_check=infers_shapes)
