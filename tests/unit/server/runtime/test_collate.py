from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from weir.server.runtime.collate import LengthInput, Padding, Tokens, count_tokens, join, split

Array = NDArray[Any]

DTYPES = ("<f4", "<f2", "<i8", "u1", "?", "O")


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, NDArray[np.generic]]]:
    """Requests of the same tensors, of one to four rows each; all elements differ."""
    dtype = draw(st.sampled_from(DTYPES))
    shapes = draw(st.lists(st.lists(st.integers(0, 3), max_size=2), min_size=1, max_size=3))
    start = 0
    requests = []
    for rows in draw(st.lists(st.integers(1, 4), min_size=1, max_size=6)):
        inputs = {}
        for number, shape in enumerate(shapes):
            size = rows * int(np.prod(shape))
            values = np.arange(start, start + size).astype(dtype).reshape(rows, *shape)
            inputs[f"input {number}"] = values
            start += size
        requests.append(inputs)
    return requests


@given(batches())
def test_split_gives_back_what_was_joined(requests: list[dict[str, NDArray[np.generic]]]) -> None:
    parts = split(join(requests), requests)

    assert len(parts) == len(requests)
    for part, inputs in zip(parts, requests, strict=True):
        assert part.keys() == inputs.keys()
        for name, array in inputs.items():
            assert part[name].dtype == array.dtype
            np.testing.assert_array_equal(part[name], array)


def test_rows_lie_one_below_the_other() -> None:
    first, second = np.array([[1, 2]]), np.array([[3, 4], [5, 6]])

    joined = join([{"x": first}, {"x": second}])

    np.testing.assert_array_equal(joined["x"], [[1, 2], [3, 4], [5, 6]])


def test_one_request_is_not_copied() -> None:
    array = np.zeros((2, 3))

    assert join([{"x": array}])["x"] is array


def test_parts_are_views() -> None:
    output = np.zeros((3, 2))

    parts = split({"y": output}, requests_of(1, 2))

    assert all(np.shares_memory(part["y"], output) for part in parts)


def requests_of(*rows: int) -> list[dict[str, Array]]:
    return [{"x": np.zeros((count, 3))} for count in rows]


@pytest.mark.parametrize("rows", [1, 2, 4], ids="{} rows answered for 3".format)
def test_output_of_another_number_of_rows_is_never_cut(rows: int) -> None:
    """Cut all the same, one caller would get another's rows, or none."""
    with pytest.raises(ValueError, match=rf"output 'y': expected 3 rows, got {rows}"):
        split({"y": np.zeros((rows, 2))}, requests_of(1, 2))


TIME = Padding(
    maximum=40,
    inputs={"tokens": (1,), "characters": (1,)},
    values={"tokens": 7, "characters": 9},
    outputs={"tags": (1,), "attention": (1, 2), "turned": (2,)},
    length_input=LengthInput("lengths"),
)
LETTERS = Padding(
    maximum=8,
    inputs={"characters": (2,)},
    values={"characters": 9},
    outputs={"spelling": (1,)},
    length_input=None,
)
PADDINGS = [TIME, LETTERS]


@st.composite
def sentences(draw: st.DrawFn) -> dict[str, NDArray[np.generic]]:
    """One request: rows of tokens and their letters, each row with a length of its own."""
    rows, size = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    seed, letters = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 8))
    generator = np.random.default_rng(seed)
    return {
        "tokens": generator.integers(0, 100, (rows, size)),
        "characters": generator.integers(0, 100, (rows, size, letters)),
        "lengths": generator.integers(1, size + 1, rows),
    }


def model(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Reads lengths alone, and writes garbage beyond them."""
    tokens, characters, lengths = inputs["tokens"], inputs["characters"], inputs["lengths"]
    is_own = np.arange(tokens.shape[1]) < lengths[:, None]  # (rows, time)
    spelt = np.where(characters == 9, 0, characters).sum(axis=2)  # (rows, time)
    sums = np.where(is_own, tokens + spelt, 0).sum(axis=1)  # (rows,)
    tags = np.where(is_own, tokens * 2 + spelt + sums[:, None], -len(tokens))
    pairs = is_own[:, :, None] & is_own[:, None]
    return {
        "sums": sums,
        "tags": tags,
        "attention": np.where(pairs, tags[:, :, None] - tags[:, None], tokens.shape[1]),
        "turned": np.stack([tags, tags], axis=1),
        "spelling": np.where(characters == 9, 0, characters).sum(axis=1),
    }


@given(st.lists(sentences(), min_size=1, max_size=6))
def test_every_request_gets_from_a_batch_what_it_gets_alone(
    requests: list[dict[str, Array]],
) -> None:
    parts = split(model(join(requests, PADDINGS)), requests, PADDINGS)

    for part, inputs in zip(parts, requests, strict=True):
        alone = model(inputs)
        (rows, size), letters = inputs["tokens"].shape, inputs["characters"].shape[2]
        assert {name: array.shape for name, array in part.items()} == {
            "sums": (rows,),
            "tags": (rows, size),
            "attention": (rows, size, size),
            "turned": (rows, 2, size),
            "spelling": (rows, letters),
        }
        for row, length in enumerate(inputs["lengths"]):
            assert part["sums"][row] == alone["sums"][row]
            for name, own in {
                "tags": np.s_[row, :length],
                "attention": np.s_[row, :length, :length],
                "turned": np.s_[row, :, :length],
            }.items():
                np.testing.assert_array_equal(part[name][own], alone[name][own])


@given(st.lists(sentences(), min_size=1, max_size=6))
def test_tokens_are_counted_with_and_without_padding(requests: list[dict[str, Array]]) -> None:
    batch = join(requests, PADDINGS)

    tokens = count_tokens(batch, PADDINGS)

    assert tokens.real == sum(inputs["lengths"].sum() for inputs in requests)
    assert tokens.computed == batch["tokens"].size


def test_model_without_lengths_has_no_tokens() -> None:
    assert count_tokens({"x": np.zeros((2, 3))}, []) == Tokens(0, 0)
    assert count_tokens({"characters": np.zeros((2, 3, 4))}, [LETTERS]) == Tokens(0, 0)


def test_short_rows_are_filled_up_with_each_inputs_own_value() -> None:
    short: dict[str, Array] = {
        "tokens": np.ones((1, 1), np.int32),
        "characters": np.ones((1, 1, 1), np.int64),
        "lengths": np.array([1]),
    }
    long: dict[str, Array] = {
        "tokens": np.ones((1, 2), np.int32),
        "characters": np.ones((1, 2, 2), np.int64),
        "lengths": np.array([2]),
    }

    joined = join([short, long], PADDINGS)

    assert joined["tokens"].tolist() == [[1, 7], [1, 1]]
    assert joined["tokens"].dtype == np.int32
    assert joined["characters"].tolist() == [[[1, 9], [9, 9]], [[1, 1], [1, 1]]]
    assert joined["lengths"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("length", "size"), [(7, 7), (17, 18), (33, 36), (39, 40), (40, 40)], ids=str
)
def test_request_that_runs_alone_has_one_of_few_sizes(length: int, size: int) -> None:
    joined = join([{"tokens": np.ones((2, length)), "lengths": np.array([length, 1])}], [TIME])

    assert joined["tokens"].shape == (2, size)
    assert (joined["tokens"][:, length:] == 7).all()


def test_request_that_fits_is_not_copied() -> None:
    tokens = np.ones((1, 12))

    assert join([{"tokens": tokens}], [TIME])["tokens"] is tokens


def test_padded_parts_are_views() -> None:
    requests = [{"tokens": np.ones((1, size))} for size in (3, 5)]
    tags = np.zeros((2, 5, 4))

    parts = split({"tags": tags}, requests, [replace(TIME, outputs={"tags": (1,)})])

    assert [part["tags"].shape for part in parts] == [(1, 3, 4), (1, 5, 4)]
    assert all(np.shares_memory(part["tags"], tags) for part in parts)


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (2,)], ids=["shorter", "longer", "no such axis"])
def test_output_of_another_length_than_the_batch_is_never_cut(shape: tuple[int, ...]) -> None:
    requests = [{"tokens": np.ones((1, size))} for size in (3, 5)]

    with pytest.raises(ValueError, match="output 'tags': expected 5 entries on axis 1, got"):
        split({"tags": np.zeros(shape)}, requests, [replace(TIME, outputs={"tags": (1,)})])
