"""Search parameters of a request, from the protocol's parameters."""

import pytest

from weir.bundle.hypothesis_ranking import DEFAULT_LENGTH_POWER
from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.generation.sampling_parameters import (
    SamplingParameters,
    SearchParameters,
    read_parameters,
)


def parameters(**values: object) -> dict[str, pb.InferParameter]:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return {
        name: pb.InferParameter(**{kinds[type(value)]: value})  # type: ignore[arg-type]
        for name, value in values.items()
    }


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, SearchParameters()),
        ({"max_tokens": 5}, SearchParameters(max_tokens=5)),
        ({"beam_width": 1}, SearchParameters()),
        ({"beam_width": 4, "length_power": 0.0}, SearchParameters(width=4, length_power=0.0)),
        ({"length_power": 1}, SearchParameters(length_power=1.0)),
        ({"seed": 0}, SearchParameters(sampling=SamplingParameters())),
        ({"top_k": 3}, SearchParameters(sampling=SamplingParameters(top_k=3))),
        ({"temperature": 2}, SearchParameters(sampling=SamplingParameters(temperature=2.0))),
        (
            {"temperature": 0.5, "top_k": 0, "seed": 2**63 - 1, "beam_width": 1},
            SearchParameters(sampling=SamplingParameters(0.5, 0, 2**63 - 1)),
        ),
        ({"something_else": "x"}, SearchParameters()),
    ],
    ids=str,
)
def test_search_is_read(given: dict[str, object], wanted: SearchParameters) -> None:
    assert read_parameters(parameters(**given)) == wanted
    assert SearchParameters().length_power == DEFAULT_LENGTH_POWER


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
        ({"beam_width": 2, "seed": 1}, "beam_width: expected 1 or none where tokens are sampled"),
        ({"beam_width": 2, "top_k": 0}, "got 2"),
    ],
    ids=str,
)
def test_value_of_the_wrong_type_or_out_of_bounds_is_refused(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_parameters(parameters(**given))

    assert message in str(caught.value)


def test_seed_may_be_unsigned_and_not_too_large() -> None:
    assert read_parameters(
        {"seed": pb.InferParameter(uint64_param=5)}
    ).sampling == SamplingParameters(seed=5)
    with pytest.raises(InvalidRequest, match="'seed'"):
        read_parameters({"seed": pb.InferParameter(uint64_param=2**63)})
    with pytest.raises(InvalidRequest, match="got None"):
        read_parameters({"seed": pb.InferParameter()})
