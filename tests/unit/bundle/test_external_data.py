import contextlib
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import stored_models
from weir.bundle.errors import BrokenBundle
from weir.bundle.external_data import locations, resolve

TENSOR = onnx.TensorProto.DESCRIPTOR
LARGE = 1280
"""Floats of a tensor that stays outside; the others get their bytes inside the graph."""


def no_file(name: str) -> bytes:
    raise AssertionError(f"{name} was read")


def refer(tensor: onnx.TensorProto, count: int, **facts: object) -> None:
    """Say that a tensor's `count` floats are elsewhere."""
    tensor.data_type = onnx.TensorProto.FLOAT
    tensor.dims[:] = [count]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", **facts}.items():
        tensor.external_data.add(key=key, value=str(value))


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


def at_path(model: Message, path: tuple[str, ...]) -> onnx.TensorProto:
    """The only tensor on a way of field names."""
    for name in path:
        value = getattr(model, name)
        model = value[0] if hasattr(value, "add") else value
    assert isinstance(model, onnx.TensorProto)
    return model


def test_inside_only(onnx_model: onnx.ModelProto) -> None:
    model = onnx_model.SerializeToString()

    assert locations(model) == []
    assert resolve(model, no_file).model is model


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
    [
        "/etc/passwd", "../../secret", "..", ".", "down/weights.bin", "*/_ORT_MEM_ADDR_/*", "",
        "C:\\weights", "weights\0.bin",
    ],
    ids=[
        "absolute", "parent", "parent-alone", "here", "below", "memory-address", "empty", "drive",
        "nul",
    ],
)  # fmt: skip
def test_location_that_is_no_file_name_is_refused(
    onnx_model: onnx.ModelProto, location: str
) -> None:
    refer(onnx_model.graph.initializer[0], 4, location=location)

    with pytest.raises(BrokenBundle, match="expected the name of a file beside") as raised:
        resolve(onnx_model.SerializeToString(), no_file)

    assert repr(location) in str(raised.value)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"offset": -8}, "offset: expected a number of bytes, got '-8'"),
        ({"offset": " 4"}, "offset: expected a number of bytes, got ' 4'"),
        ({"offset": 1 << 62}, "in 'weights.bin', got 100: is the file complete"),
        ({"offset": 88}, "expected at least 104 bytes in 'weights.bin', got 100"),
        ({"length": 1 << 50}, "expected the 16 bytes of its type and shape, got a length of"),
        ({"length": "16 "}, "length: expected a number of bytes, got '16 '"),
    ],
    ids=["negative", "space", "enormous", "past-the-end", "other-length", "length-space"],
)
def test_place_outside_the_file_is_refused(
    onnx_model: onnx.ModelProto, facts: dict[str, object], message: str
) -> None:
    refer(onnx_model.graph.initializer[0], 4, **facts)

    with pytest.raises(BrokenBundle, match=message):
        resolve(onnx_model.SerializeToString(), lambda _: bytes(100))


def test_two_locations_of_a_tensor_are_refused(onnx_model: onnx.ModelProto) -> None:
    weight = onnx_model.graph.initializer[0]
    refer(weight, 4)
    weight.external_data.add(key="location", value="other.bin")

    with pytest.raises(BrokenBundle, match="expected one 'location', got two"):
        resolve(onnx_model.SerializeToString(), no_file)


def test_two_large_tensors_of_one_name_are_refused(onnx_model: onnx.ModelProto) -> None:
    # ONNX Runtime would look for the second on the disk.
    for _ in range(2):
        refer(onnx_model.graph.initializer.add(name="same"), LARGE)

    with pytest.raises(BrokenBundle, match="'same': expected one initializer of that name"):
        resolve(onnx_model.SerializeToString(), lambda _: bytes(4 * LARGE))


@pytest.mark.parametrize(
    ("data_type", "dims"),
    [(onnx.TensorProto.STRING, [2]), (99, [2]), (1, [-2])],
    ids=["text", "unknown", "negative-size"],
)
def test_tensor_without_a_size_is_refused(
    onnx_model: onnx.ModelProto, data_type: int, dims: list[int]
) -> None:
    weight = onnx_model.graph.initializer[0]
    refer(weight, 2)
    weight.data_type = data_type
    weight.dims[:] = dims

    with pytest.raises(BrokenBundle, match=r"expected (a type of numbers|sizes from 0)"):
        resolve(onnx_model.SerializeToString(), no_file)


def test_every_place_of_a_tensor_is_resolved() -> None:
    numbers = np.arange(2 * LARGE, dtype=np.float32)
    for path in ALL_PATHS:
        for count in (4, LARGE):
            model = onnx.ModelProto(producer_name="before", ir_version=10)
            tensor = tensor_at(model, path)
            tensor.name = "w"
            refer(tensor, count, offset=4)

            resolved = resolve(model.SerializeToString(), lambda _: numbers.tobytes())

            found = onnx.ModelProto.FromString(resolved.model)
            (written,) = (at_path(found, path),)
            assert (found.producer_name, found.ir_version, written.name) == ("before", 10, "w")
            if path == ("graph", "initializer") and count == LARGE:
                (outside,) = resolved.external
                data = np.frombuffer(outside.data, np.float32)
                assert (outside.name, outside.shape) == ("w", (LARGE,))
                # No file system has a file of that name.
                assert len(outside.location) > 255
                assert locations(resolved.model) == [outside.location]
            else:
                data = onnx.numpy_helper.to_array(written)
                assert locations(resolved.model) == [] and resolved.external == ()
            np.testing.assert_array_equal(data, numbers[1 : count + 1])


def test_elements_of_four_bits_are_packed(onnx_model: onnx.ModelProto) -> None:
    weight = onnx_model.graph.initializer[0]
    refer(weight, 3, length=2)
    weight.data_type = onnx.TensorProto.INT4

    resolved = resolve(onnx_model.SerializeToString(), lambda _: b"\x21\x03")

    (inside, *_) = onnx.ModelProto.FromString(resolved.model).graph.initializer
    assert onnx.numpy_helper.to_array(inside).tolist() == [1, 2, 3]


def test_file_is_read_once(onnx_model: onnx.ModelProto) -> None:
    for number in range(3):
        refer(onnx_model.graph.initializer.add(name=f"w{number}"), LARGE, offset=4 * number)
    read: list[str] = []

    def read_file(name: str) -> bytes:
        read.append(name)
        return bytes(5000 + 4 * LARGE)

    resolved = resolve(onnx_model.SerializeToString(), read_file)

    assert read == ["weights.bin"]
    assert [tensor.name for tensor in resolved.external] == ["w0", "w1", "w2"]


def test_location_may_name_the_directory_itself(onnx_model: onnx.ModelProto) -> None:
    refer(onnx_model.graph.initializer.add(name="w0"), LARGE, location="./weights.bin")
    refer(onnx_model.graph.initializer.add(name="w1"), LARGE, location="weights.bin")
    read: list[str] = []

    def read_file(name: str) -> bytes:
        read.append(name)
        return bytes(4 * LARGE)

    resolved = resolve(onnx_model.SerializeToString(), read_file)

    assert read == ["weights.bin"]
    assert [tensor.name for tensor in resolved.external] == ["w0", "w1"]


def test_remark_of_a_file_that_is_not_used_is_dropped(onnx_model: onnx.ModelProto) -> None:
    before = onnx.numpy_helper.to_array(onnx_model.graph.initializer[0])
    onnx_model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")

    resolved = resolve(onnx_model.SerializeToString(), no_file)

    (inside, *_) = onnx.ModelProto.FromString(resolved.model).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(inside), before)
    assert locations(resolved.model) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [(1, "expected a type of numbers"), (7, "malformed bytes: data_location 7")],
    ids=["external", "unknown"],
)
def test_external_data_without_a_location_are_refused(
    onnx_model: onnx.ModelProto, value: int, message: str
) -> None:
    # tensor { data_location: value } inside graph.initializer, added on the wire.
    model = onnx_model.SerializeToString() + bytes([0x3A, 4, 0x2A, 2, 0x70, value])

    assert locations(model) == ["(no location)"]
    with pytest.raises(BrokenBundle, match=message):
        resolve(model, no_file)


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


SPLIT = stored_models.split(stored_models.scale(2.0))


@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4))
def test_damaged_graph_is_refused_or_names_no_file(changes: list[tuple[int, int]]) -> None:
    model = bytearray(SPLIT["model.onnx"])
    for place, byte in changes:
        model[place % len(model)] = byte

    with contextlib.suppress(BrokenBundle, KeyError):
        resolved = resolve(bytes(model), SPLIT.__getitem__)

        assert all(len(location) > 255 for location in locations(resolved.model))
        assert len(locations(resolved.model)) == len(resolved.external)


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
    refer(onnx_model.graph.initializer[0], 4, location=location)

    with pytest.raises(BrokenBundle) as raised:
        resolve(onnx_model.SerializeToString(), no_file)

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

    started_s = time.thread_time()
    assert locations(model) == []
    cpu_s = time.thread_time() - started_s

    assert cpu_s < 0.5
