from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from weir.client import tasks
from weir.client.errors import Internal, UsageError
from weir.client.results import Class
from weir.protocol import tasks_pb2 as pb

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3, 4]))


@given(arrays.arrays(np.uint8, SHAPES))
def test_pixels_travel_row_by_row(array: np.ndarray) -> None:
    (message,) = tasks.picture_messages([array])

    raw = message.raw
    back = np.frombuffer(raw.values, np.uint8).reshape(raw.height, raw.width, raw.channels)
    np.testing.assert_array_equal(back, array)


def test_grey_needs_no_axis_of_channels() -> None:
    (message,) = tasks.picture_messages([np.zeros((2, 3), np.uint8)])

    assert (message.raw.height, message.raw.width, message.raw.channels) == (2, 3, 1)


def test_layout_does_not_matter() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(3, 2, 4).transpose(1, 0, 2)

    (message,) = tasks.picture_messages([array])

    assert message.raw.values == np.ascontiguousarray(array).tobytes()


def test_a_batch_of_arrays_is_several_pictures() -> None:
    assert len(tasks.picture_messages(np.zeros((5, 2, 3, 3), np.uint8))) == 5


@pytest.mark.parametrize(
    "one",
    ["cat.jpg", Path("cat.jpg"), b"\xff\xd8", np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3))],
    ids=["text", "path", "bytes", "array", "grey"],
)
def test_one_picture_is_no_list_of_pictures(one: Any) -> None:
    with pytest.raises(UsageError, match="put it into a list"):
        tasks.picture_messages(one)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 3)),
        np.zeros((2, 3, 2), np.uint8),
        np.zeros((1, 2, 3, 3), np.uint8),
        np.zeros(3, np.uint8),
    ],
    ids=["float", "channels", "too many axes", "too few"],
)
def test_an_array_that_is_no_picture_is_refused(array: Any) -> None:
    with pytest.raises(UsageError, match="expected a uint8 array"):
        tasks.picture_messages([array])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.jpg: No such file"):
        tasks.picture_messages([tmp_path / "none.jpg"])


def test_the_call_is_the_services() -> None:
    call = tasks.classify("m", [pb.Picture(encoded=b"p")], top=2, version="7")

    assert call.path == "/weir.v1.Tasks/Classify"
    assert pb.ClassifyRequest.FromString(call.body) == pb.ClassifyRequest(
        model_name="m", model_version="7", pictures=[pb.Picture(encoded=b"p")], top_k=2
    )


@pytest.mark.parametrize("top", [-1, 0, 2**32])
def test_no_number_of_classes_is_refused(top: int) -> None:
    with pytest.raises(UsageError, match=f"top: expected 1 to 4294967295, got {top}"):
        tasks.classify("m", [], top=top, version="")


def test_the_answer_is_read_in_its_order() -> None:
    call = tasks.classify("m", [pb.Picture(), pb.Picture()], top=2, version="")
    answer = pb.ClassifyResponse()
    answer.results.add().classes.add(label="cat", index=7, probability=0.5)
    answer.results.add()

    assert call.read(answer.SerializeToString()) == [[Class(0.5, 7, "cat")], []]


@pytest.mark.parametrize("body", [b"", b"\xff"], ids=["too few results", "no message"])
def test_an_answer_that_breaks_the_protocol_is_internal(body: bytes) -> None:
    call = tasks.classify("m", [pb.Picture()], top=2, version="")

    with pytest.raises(Internal):
        call.read(body)
