"""What a request may ask of the search, in the protocol's parameters."""

import pytest

from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.generation.parameters import read_search
from weir.server.generation.sampling import DEFAULT_LENGTH_POWER, Draw, Search


def parameters(**values: object) -> dict[str, pb.InferParameter]:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return {
        name: pb.InferParameter(**{kinds[type(value)]: value})  # type: ignore[arg-type]
        for name, value in values.items()
    }


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, Search()),
        ({"max_tokens": 5}, Search(most_tokens=5)),
        ({"beam_width": 1}, Search()),
        ({"beam_width": 4, "length_power": 0.0}, Search(width=4, length_power=0.0)),
        ({"length_power": 1}, Search(length_power=1.0)),
        ({"seed": 0}, Search(draw=Draw())),
        ({"top_k": 3}, Search(draw=Draw(top_k=3))),
        ({"temperature": 2}, Search(draw=Draw(temperature=2.0))),
        (
            {"temperature": 0.5, "top_k": 0, "seed": 2**63 - 1, "beam_width": 1},
            Search(draw=Draw(0.5, 0, 2**63 - 1)),
        ),
        ({"something_else": "x"}, Search()),
    ],
    ids=str,
)
def test_search_is_read(given: dict[str, object], wanted: Search) -> None:
    assert read_search(parameters(**given)) == wanted
    assert Search().length_power == DEFAULT_LENGTH_POWER


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_tokens": 0}, "'max_tokens': expected 1 to 2147483647, got 0"),
        ({"max_tokens": -1}, "'max_tokens': expected 0 to 2147483647, got -1"),
        ({"max_tokens": 2**31}, "'max_tokens'"),
        ({"max_tokens": 5.0}, "'max_tokens': expected int64_param or uint64_param"),
        ({"max_tokens": "5"}, "'max_tokens'"),
        ({"max_tokens": True}, "'max_tokens'"),
        ({"beam_width": 0}, "'beam_width'"),
        ({"beam_width": 2.0}, "'beam_width'"),
        ({"length_power": -0.1}, "'length_power': expected 0 to 10, got -0.1"),
        ({"length_power": 10.1}, "'length_power'"),
        ({"length_power": float("nan")}, "'length_power'"),
        ({"length_power": "1"}, "'length_power'"),
        ({"temperature": 0.0}, "'temperature': expected 0.01 to 100, got 0"),
        ({"temperature": float("inf")}, "'temperature'"),
        ({"temperature": float("nan")}, "'temperature'"),
        ({"temperature": True}, "'temperature'"),
        ({"top_k": -1}, "'top_k'"),
        ({"top_k": 1.5}, "'top_k'"),
        ({"seed": -1}, "'seed'"),
        ({"seed": "1"}, "'seed'"),
        ({"beam_width": 2, "seed": 1}, "beam_width: expected 1 or none where tokens are drawn"),
        ({"beam_width": 2, "top_k": 0}, "got 2"),
    ],
    ids=str,
)
def test_value_of_the_wrong_type_or_out_of_bounds_is_refused(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_search(parameters(**given))

    assert message in str(caught.value)


def test_seed_may_be_unsigned_and_not_too_large() -> None:
    assert read_search({"seed": pb.InferParameter(uint64_param=5)}).draw == Draw(seed=5)
    with pytest.raises(InvalidRequest, match="'seed'"):
        read_search({"seed": pb.InferParameter(uint64_param=2**63)})
    with pytest.raises(InvalidRequest, match="got None"):
        read_search({"seed": pb.InferParameter()})
