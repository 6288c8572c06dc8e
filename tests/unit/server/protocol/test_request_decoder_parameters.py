from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.infer_parameters import keys, values
from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest, Unsupported
from weir.server.protocol.request_decoder import (
    check_id,
    check_input,
    read_classification,
    read_timeout_s,
)


def parameters(**values: Any) -> dict[str, pb.InferParameter]:
    """Each of the kind of its value: True, 1, 1.5, "text", or a message as it is."""
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return {
        key: value
        if isinstance(value, pb.InferParameter)
        else pb.InferParameter(**{kinds[type(value)]: value})
        for key, value in values.items()
    }


def unsigned(value: int) -> pb.InferParameter:
    return pb.InferParameter(uint64_param=value)


@pytest.mark.parametrize(
    "request_id", ["", "a", "a" * 256, "id-7 of µ"], ids=["none", "short", "longest", "text"]
)
def test_plain_ids_pass(request_id: str) -> None:
    check_id(request_id)


@pytest.mark.parametrize(
    "request_id",
    ["a" * 257, "a" * 1_000_000, "a\nb", "\x1b[31m", "a\0b", "a\u2028b"],
    ids=["a character too long", "1 MB", "newline", "escape", "NUL", "line separator"],
)
def test_ids_that_would_make_a_mess_of_a_log_are_refused(request_id: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^id: expected") as refused:
        check_id(request_id)

    assert request_id not in str(refused.value)


@pytest.mark.parametrize(
    ("given_parameters", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param(parameters(timeout=1_500_000), 1.5, id="microseconds"),
        pytest.param(parameters(timeout=unsigned(250)), 0.00025, id="unsigned"),
        pytest.param(parameters(timeout=0), None, id="zero is no timeout"),
        pytest.param(parameters(timeout=86_400_000_000), 86_400.0, id="a day"),
    ],
)
def test_timeout_is_read_in_seconds(
    given_parameters: dict[str, pb.InferParameter], expected: float | None
) -> None:
    assert read_timeout_s(given_parameters) == expected


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param(parameters(priority=unsigned(3)), id="priority, unsigned"),
        pytest.param(parameters(priority=3), id="priority, signed"),
        pytest.param(parameters(triton_enable_empty_final_response=True), id="perf_analyzer's"),
        pytest.param(parameters(sequence_id=0), id="sequence 0 is none"),
        pytest.param(parameters(sequence_id=""), id="sequence '' is none"),
        pytest.param(parameters(sequence_start=False, sequence_end=False), id="no sequence"),
        pytest.param(parameters(temperature=0.5, user="me"), id="the client's own"),
        pytest.param({f"own{number}": pb.InferParameter() for number in range(64)}, id="64"),
    ],
)
def test_harmless_parameters_change_nothing(harmless: dict[str, pb.InferParameter]) -> None:
    assert read_timeout_s(harmless) is None


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        pytest.param(
            parameters(timeout=-1), "'timeout': expected 0 to 86400000000, got -1", id="-1"
        ),
        pytest.param(parameters(timeout=86_400_000_001), "'timeout'", id="more than a day"),
        pytest.param(parameters(timeout=unsigned(2**64 - 1)), "'timeout'", id="2**64 - 1"),
        pytest.param(parameters(timeout="1"), "expected int64_param or uint64_param", id="text"),
        pytest.param(parameters(timeout=1.0), "expected int64_param or uint64_param", id="double"),
        pytest.param(parameters(timeout=pb.InferParameter()), "got None", id="no value"),
        pytest.param(parameters(priority=2**33), "'priority': expected 0 to", id="priority"),
        pytest.param(parameters(priority=True), "'priority'", id="priority of bool"),
        pytest.param(
            parameters(triton_enable_empty_final_response=1), "expected bool_param", id="not a bool"
        ),
        pytest.param(parameters(triton_other=True), "'triton_other' is reserved", id="reserved"),
        pytest.param(parameters(sequence_id=1.5), "'sequence_id'", id="sequence of double"),
        pytest.param(
            {f"own{number}": pb.InferParameter() for number in range(65)},
            "expected at most 64 parameters, got 65",
            id="65",
        ),
    ],
)
def test_malformed_parameters_are_refused(
    refused: dict[str, pb.InferParameter], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_timeout_s(refused)


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(parameters(sequence_id=1), id="sequence by number"),
        pytest.param(parameters(sequence_id=unsigned(1)), id="sequence by unsigned number"),
        pytest.param(parameters(sequence_id="a"), id="sequence by name"),
        pytest.param(parameters(sequence_start=True), id="sequence start"),
        pytest.param(parameters(sequence_end=True), id="sequence end"),
        pytest.param(parameters(shared_memory_region="r"), id="shared memory"),
    ],
)
def test_features_left_out_are_not_offered(refused: dict[str, pb.InferParameter]) -> None:
    with pytest.raises(Unsupported):
        read_timeout_s(refused)


def test_input_in_shared_memory_is_not_offered() -> None:
    with pytest.raises(Unsupported, match="input 'x': shared memory"):
        check_input("x", parameters(shared_memory_region="r", shared_memory_byte_size=4))


def test_output_in_shared_memory_is_not_offered() -> None:
    with pytest.raises(Unsupported, match="output 'y': shared memory"):
        read_classification("y", parameters(shared_memory_region="r"))


def test_an_inputs_own_parameters_are_let_through() -> None:
    check_input("x", parameters(binary_data_size=4))


@pytest.mark.parametrize("check", [check_input, read_classification], ids=["input", "output"])
def test_a_tensors_parameters_are_counted_too(check: Any) -> None:
    with pytest.raises(InvalidRequest, match="at most 64 parameters, got 1000"):
        check("x", {f"own{number}": pb.InferParameter() for number in range(1000)})


@pytest.mark.parametrize(
    ("given_parameters", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param(parameters(classification=3), 3, id="three"),
        pytest.param(parameters(classification=unsigned(2**31 - 1)), 2**31 - 1, id="most"),
    ],
)
def test_classification_is_a_number_of_classes(
    given_parameters: dict[str, pb.InferParameter], expected: int | None
) -> None:
    assert read_classification("y", given_parameters) == expected


@pytest.mark.parametrize("value", [0, -1, 2**31, True, "3", 1.0], ids=repr)
def test_classification_out_of_bounds_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="classification"):
        read_classification("y", parameters(classification=value))


@given(st.dictionaries(keys, values))
def test_any_parameters_pass_or_are_refused(sent: dict[str, pb.InferParameter]) -> None:
    try:
        timeout_s = read_timeout_s(sent)
    except (InvalidRequest, Unsupported):
        return

    assert timeout_s is None or 0 < timeout_s <= 86_400
