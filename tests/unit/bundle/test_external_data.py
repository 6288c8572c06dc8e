import contextlib
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.errors import BrokenBundle
from weir.bundle.external_data import locations, refuse

TENSOR = onnx.TensorProto.DESCRIPTOR


def paths_to_tensors(message: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every way of field names from `message` to a tensor, as onnx itself declares them."""
    for field in message.fields:
        child = field.message_type
        if child is None:
            continue
        if child.full_name == TENSOR.full_name:
            yield (field.name,)
        elif above.count(child.full_name) < 2:
            for path in paths_to_tensors(child, (*above, child.full_name)):
                yield (field.name, *path)


ALL_PATHS = sorted(set(paths_to_tensors(onnx.ModelProto.DESCRIPTOR)))


def tensor_at(model: Message, path: tuple[str, ...]) -> onnx.TensorProto:
    for name in path:
        value = getattr(model, name)
        model = value.add() if hasattr(value, "add") else value
    assert isinstance(model, onnx.TensorProto)
    return model


def test_inside_only(onnx_model: onnx.ModelProto) -> None:
    model = onnx_model.SerializeToString()

    refuse(model, "model.onnx")

    assert locations(model) == []


def test_enough_paths_are_tried() -> None:
    assert ("graph", "initializer") in ALL_PATHS
    assert ("functions", "node", "attribute", "sparse_tensor", "indices") in ALL_PATHS
    assert ("training_info", "algorithm", "node", "attribute", "g", "initializer") in ALL_PATHS


def test_every_place_of_a_tensor_is_looked_at() -> None:
    missed = []
    for path in ALL_PATHS:
        model = onnx.ModelProto()
        tensor = tensor_at(model, path)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
        if locations(model.SerializeToString()) != ["weights.bin"]:
            missed.append(path)

    assert missed == []


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../../secret", "weights.bin", "*/_ORT_MEM_ADDR_/*", ""],
    ids=["absolute", "parent", "unlisted", "memory-address", "empty"],
)
def test_refused_by_name(onnx_model: onnx.ModelProto, location: str) -> None:
    weight = onnx_model.graph.initializer[0]
    weight.external_data.add(key="offset", value="-8")
    weight.external_data.add(key="length", value=str(1 << 50))
    weight.external_data.add(key="location", value=location)

    with pytest.raises(BrokenBundle) as raised:
        refuse(onnx_model.SerializeToString(), "model.onnx")

    assert repr(location) in str(raised.value)


@pytest.mark.parametrize("value", [1, 7], ids=["external", "unknown"])
def test_external_without_a_location(onnx_model: onnx.ModelProto, value: int) -> None:
    # tensor { data_location: value } inside graph.initializer, added on the wire.
    model = onnx_model.SerializeToString() + bytes([0x3A, 4, 0x2A, 2, 0x70, value])

    with pytest.raises(BrokenBundle, match="no location"):
        refuse(model, "model.onnx")


def test_many_locations_are_counted_not_listed() -> None:
    model = onnx.ModelProto()
    for number in range(8):
        model.graph.initializer.add().external_data.add(key="location", value=f"w{number}")

    with pytest.raises(BrokenBundle, match="and 3 more"):
        refuse(model.SerializeToString(), "model.onnx")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(b"\x3a\x05ab", id="too-short"),
        pytest.param(b"\x3a", id="no-length"),
        pytest.param(b"\xff" * 11, id="endless-integer"),
        pytest.param(b"\x00\x00", id="field-zero"),
        pytest.param(b"\x3b\x3c", id="group"),
        pytest.param(b"\xba\x80\x80\x80\x10\x00", id="tag-of-33-bits"),
        pytest.param(b"\x3d\x00", id="short-fixed"),
    ],
)
def test_malformed_bytes_are_refused(model: bytes) -> None:
    with pytest.raises(BrokenBundle, match="malformed"):
        locations(model)


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(BrokenBundle):
        assert isinstance(locations(data), list)


def nested(subgraphs: int) -> bytes:
    model = b""
    for _ in range(subgraphs):  # graph.node.attribute.g, again and again, from the inside out
        for tag in (0x32, 0x2A, 0x0A):
            size = len(model)
            model = bytes([tag, *varint(size)]) + model
    return bytes([0x3A, *varint(len(model))]) + model


def test_nesting_is_followed_as_deep_as_protobuf_goes() -> None:
    onnx.ModelProto.FromString(nested(33))
    with pytest.raises(DecodeError):
        onnx.ModelProto.FromString(nested(34))

    assert locations(nested(33)) == []
    for subgraphs in (34, 2000):
        with pytest.raises(BrokenBundle, match="nested more than 100 deep"):
            locations(nested(subgraphs))


def test_memory_does_not_grow_with_the_nodes() -> None:
    nodes = bytes([0x0A, 0]) * 100_000
    model = bytes([0x3A, *varint(len(nodes))]) + nodes

    tracemalloc.start()
    assert locations(model) == []
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < len(model) / 2


def test_long_location_is_truncated(onnx_model: onnx.ModelProto) -> None:
    location = "/home/\x1b[31m\n" + "a" * 1_000_000
    onnx_model.graph.initializer[0].external_data.add(key="location", value=location)

    with pytest.raises(BrokenBundle) as raised:
        refuse(onnx_model.SerializeToString(), "model.onnx")

    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 3000


def varint(value: int) -> list[int]:
    result = []
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return [*result, value]


def test_cost_does_not_grow_with_the_weights() -> None:
    # graph.initializer.raw_data, written directly: building it with onnx takes seconds.
    model = bytes(250_000_000)
    for tag in (0x4A, 0x2A, 0x3A):
        model = bytes([tag, *varint(len(model))]) + model

    start = time.perf_counter()
    assert locations(model) == []
    elapsed_s = time.perf_counter() - start

    assert elapsed_s < 0.5
