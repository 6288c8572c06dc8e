import math
import struct
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from weir.protocol import inference_pb2 as pb
from weir.protocol import model_config_pb2 as config_pb
from weir.protocol.datatypes import DATATYPES, datatype_of, from_raw, to_raw

# Written down once more, after the protocol: name, bytes an element, its letter in `struct`.
SIZES = {
    "BOOL": (1, "?"),
    "UINT8": (1, "B"),
    "UINT16": (2, "H"),
    "UINT32": (4, "I"),
    "UINT64": (8, "Q"),
    "INT8": (1, "b"),
    "INT16": (2, "h"),
    "INT32": (4, "i"),
    "INT64": (8, "q"),
    "FP16": (2, "e"),
    "FP32": (4, "f"),
    "FP64": (8, "d"),
    "BF16": (2, "H"),
}
NUMBERS = sorted(SIZES)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def test_every_datatype_of_the_protocol_is_there() -> None:
    assert set(DATATYPES) == {*SIZES, "BYTES"}


@pytest.mark.parametrize("name", NUMBERS)
def test_element_has_the_protocols_size(name: str) -> None:
    assert DATATYPES[name].dtype.itemsize == SIZES[name][0]


@pytest.mark.parametrize("name", DATATYPES)
def test_contents_are_a_field_of_the_protocol(name: str) -> None:
    field = DATATYPES[name].contents

    if name in ("FP16", "BF16"):
        assert field is None
    else:
        assert field in pb.InferTensorContents.DESCRIPTOR.fields_by_name


@pytest.mark.parametrize("name", DATATYPES)
def test_config_number_is_the_protocols(name: str) -> None:
    config_name = "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"

    assert DATATYPES[name].config == config_pb.DataType.Value(config_name)


@pytest.mark.parametrize("name", NUMBERS)
def test_raw_bytes_are_little_endian(name: str) -> None:
    letter = SIZES[name][1]
    values = [True, False] if name == "BOOL" else [1, 77]
    raw = struct.pack(f"<2{letter}", *values)

    array = from_raw(raw, name, (2,))

    assert array.tolist() == values
    assert to_raw(array) == raw


@given(st.sampled_from(NUMBERS), shapes, st.data())
def test_numbers_come_back_bit_by_bit(
    name: str, shape: tuple[int, ...], data: st.DataObject
) -> None:
    size = math.prod(shape) * SIZES[name][0]
    raw = data.draw(st.binary(min_size=size, max_size=size))

    array = from_raw(raw, name, shape)

    assert array.shape == shape
    assert array.dtype == DATATYPES[name].dtype
    assert to_raw(array) == raw


@given(hnp.arrays(object, hnp.array_shapes(min_dims=0, min_side=0), elements=st.binary(max_size=9)))
def test_strings_come_back_with_every_byte(array: NDArray[np.object_]) -> None:
    back = from_raw(to_raw(array), "BYTES", array.shape)

    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


def test_string_is_its_length_and_its_bytes() -> None:
    array = np.array(["ä", ""], object)

    assert to_raw(array) == b"\x02\0\0\0\xc3\xa4\0\0\0\0"


@pytest.mark.parametrize(
    "array", [np.array([b"a", b"bc"]), np.array(["a", "bc"])], ids=["bytes", "text"]
)
def test_strings_of_numpys_own_kinds_are_written_alike(array: NDArray[np.generic]) -> None:
    assert to_raw(array) == b"\x01\0\0\0a\x02\0\0\0bc"


@given(st.sampled_from(NUMBERS), shapes, st.binary(max_size=64))
def test_wrong_number_of_bytes_is_refused(name: str, shape: tuple[int, ...], raw: bytes) -> None:
    expected = math.prod(shape) * SIZES[name][0]
    if len(raw) == expected:
        raw += b"\0"

    with pytest.raises(ValueError, match=f"expected {expected} bytes, got {len(raw)}"):
        from_raw(raw, name, shape)


@pytest.mark.parametrize(
    ("raw", "count", "message"),
    [
        pytest.param(b"", 1, "expected 1 elements, got 0 bytes", id="nothing"),
        pytest.param(b"\1\0\0", 1, "expected 1 elements", id="length cut short"),
        pytest.param(b"\5\0\0\0abcd", 1, "element 0 of 1 ends past", id="element cut short"),
        pytest.param(b"\xff\xff\xff\xff", 1, "element 0 of 1 ends past", id="length of 4 GiB"),
        pytest.param(b"\4\0\0\0abcd\1\0", 2, "element 1 of 2 ends past", id="second length cut"),
        pytest.param(b"\1\0\0\0a\1\0\0\0b", 1, "expected 1 elements in 5 bytes", id="one too many"),
        pytest.param(b"\1\0\0\0a\0", 1, "expected 1 elements in 5 bytes", id="trailing byte"),
        pytest.param(b"\0", 0, "expected 0 elements", id="bytes for no element"),
    ],
)
def test_strings_that_do_not_add_up_are_refused(raw: bytes, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_raw(raw, "BYTES", (count,))


@given(st.binary(max_size=40), st.integers(0, 2**62))
def test_any_bytes_are_strings_or_a_value_error(raw: bytes, count: int) -> None:
    try:
        array = from_raw(raw, "BYTES", (count,))
    except ValueError:
        return

    assert to_raw(array) == raw


@given(st.sampled_from(sorted(set(NUMBERS) - {"BF16"})))
def test_big_endian_arrays_are_turned_around(name: str) -> None:
    big = np.array([1, 0, 1]).astype(DATATYPES[name].dtype.newbyteorder(">"))

    assert to_raw(big) == struct.pack(f"<3{SIZES[name][1]}", 1, 0, 1)


@pytest.mark.parametrize("name", [pytest.param(name, id=f"B10-{name}") for name in sorted(NUMBERS)])
def test_array_of_raw_bytes_is_little_endian_and_native(name: str) -> None:
    """ONNX Runtime takes a big-endian array, and computes with its bytes as they are."""
    array = from_raw(bytes(8 * 4)[: 4 * DATATYPES[name].dtype.itemsize], name, (4,))

    assert array.dtype.newbyteorder("<") == array.dtype
    assert array.dtype.isnative == (sys.byteorder == "little") or array.dtype.itemsize == 1


@pytest.mark.parametrize("order", ["transposed", "strided", "fortran"])
def test_layout_in_memory_does_not_matter(order: str) -> None:
    base = np.arange(12, dtype="<i4").reshape(3, 4)
    array = {"transposed": base.T, "strided": base[:, ::2], "fortran": np.asfortranarray(base)}[
        order
    ]
    flat = [int(value) for row in array for value in row]

    assert to_raw(array) == struct.pack(f"<{len(flat)}i", *flat)


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - {"BF16"}))
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_dtype_has_its_name_in_either_byte_order(name: str, order: str) -> None:
    assert datatype_of(DATATYPES[name].dtype.newbyteorder(order)) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        pytest.param(np.dtype(object), "BYTES", id="object"),
        pytest.param(np.dtype("S3"), "BYTES", id="bytes"),
        pytest.param(np.dtype("U3"), "BYTES", id="text"),
        pytest.param(np.dtype(ml_dtypes.bfloat16), "BF16", id="bfloat16"),
    ],
)
def test_dtypes_beside_the_table_have_a_name(dtype: np.dtype[np.generic], name: str) -> None:
    assert datatype_of(dtype) == name


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "V3", "f16"])
def test_dtype_the_protocol_lacks_is_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="has no datatype in the inference protocol"):
        datatype_of(np.dtype(dtype))


def test_numbers_are_viewed_not_copied() -> None:
    raw = bytes(64)

    array = from_raw(raw, "FP32", (4, 4))

    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))
