import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.contract import Contract, Tolerance
from weir.bundle.sequences import PaddedAxis
from weir.server.runtime.collate import LengthInput, Padding, paddings_of, rounded_up
from weir.server.runtime.signature import TensorSpec

INPUTS = [
    TensorSpec("tokens", "INT64", ("batch", "time")),
    TensorSpec("characters", "INT64", ("batch", "time", "letters")),
    TensorSpec("lengths", "INT64", ("batch",)),
]
OUTPUTS = [
    TensorSpec("logits", "FP32", ("batch", "time", 3)),
    TensorSpec("attention", "FP32", ("batch", "time", "time")),
    TensorSpec("class", "FP32", ("batch", 3)),
]
CONTRACT = Contract(
    task="tagging",
    architecture="tagger",
    padded_axes={
        "time": PaddedAxis(maximum=50, lengths="lengths", padding={"tokens": 0, "characters": 0}),
        "letters": PaddedAxis(maximum=8, padding={"characters": 0}),
    },
    tolerance=Tolerance(absolute=0, relative=0),
)
TIME, LETTERS = paddings_of(CONTRACT, INPUTS, OUTPUTS)


@given(st.integers(1, 10_000))
def test_size_is_rounded_up_by_an_eighth_at_most(length: int) -> None:
    size = rounded_up(length)

    assert length <= size <= length * 1.125
    assert size == length or length > 16
    assert rounded_up(size) == size


def test_there_are_few_sizes() -> None:
    sizes = {rounded_up(length) for length in range(1, 513)}

    assert len(sizes) == 16 + 5 * 8


@given(st.lists(st.integers(1, 50), min_size=1))
def test_batch_is_as_long_as_its_longest_and_no_longer_than_the_contract_allows(
    sizes: list[int],
) -> None:
    assert max(sizes) <= TIME.padded_size(sizes) <= 50


def test_axis_is_found_wherever_a_tensor_carries_it() -> None:
    assert (
        Padding(
            maximum=50,
            inputs={"tokens": (1,), "characters": (1,)},
            values={"tokens": 0, "characters": 0},
            outputs={"logits": (1,), "attention": (1, 2)},
            length_input=LengthInput("lengths"),
        )
        == TIME
    )
    assert (LETTERS.inputs, LETTERS.outputs, LETTERS.length_input) == (
        {"characters": (2,)},
        {},
        None,
    )


@pytest.mark.parametrize(("padding", "size"), [(TIME, 5), (LETTERS, 2)], ids=["time", "letters"])
def test_size_of_a_request_is_that_of_its_tensors(padding: Padding, size: int) -> None:
    inputs = {"tokens": np.ones((1, 5)), "characters": np.ones((1, 5, 2))}

    assert padding.size_of(inputs) == size


def test_without_a_contract_nothing_is_padded() -> None:
    assert paddings_of(None, INPUTS, OUTPUTS) == ()
