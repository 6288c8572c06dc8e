"""The unmodified `tritonclient` against plain models and a bundle."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.integration.conftest import ECHOES
from tests.integration.harness import Client, Server, arrays, request, tensor
from weir.protocol import inference_pb2 as pb

PROGRAM = Path(__file__).with_name("triton_client.py")

INVALID, NOT_FOUND = "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"
UNAVAILABLE, UNIMPLEMENTED = "StatusCode.UNAVAILABLE", "StatusCode.UNIMPLEMENTED"


@pytest.fixture(scope="session")
def seen(house: Server) -> dict[str, Any]:
    """All that the client saw, by the function that looked."""
    result = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, house.target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answers: dict[str, Any] = json.loads(result.stdout)
    return answers


def test_states(seen: dict[str, Any]) -> None:
    states = seen["states"]

    assert states["live"] and states["ready"] and states["affine"] and states["affine 7"]
    assert states["broken"] is False
    assert states["unknown"] == [NOT_FOUND, "unknown model 'unknown'"]
    assert states["affine 8"][0] == NOT_FOUND


def test_metadata(seen: dict[str, Any]) -> None:
    metadata = seen["metadata"]

    assert metadata["server"]["name"] == "weir"
    assert "statistics" in metadata["server"]["extensions"]
    assert metadata["arithmetic"]["versions"] == ["7"]
    assert metadata["arithmetic"]["inputs"] == [
        {"name": name, "datatype": "FP32", "shape": ["-1", "3"]} for name in ("a", "b")
    ]
    assert [output["name"] for output in metadata["arithmetic"]["outputs"]] == ["sum", "product"]
    assert metadata["labelled"]["versions"] == ["1"]
    assert metadata["broken"][0] == UNAVAILABLE


def test_config(seen: dict[str, Any]) -> None:
    labelled, patient = seen["config"]["labelled"], seen["config"]["patient"]
    without_rows = seen["config"]["without_rows"]

    assert labelled["max_batch_size"] == 8
    assert labelled["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert labelled["output"][0]["label_filename"] == "labels.txt"
    assert patient["max_batch_size"] == 2
    assert patient["dynamic_batching"]["max_queue_delay_microseconds"] == str(86400 * 10**6)
    assert without_rows.get("max_batch_size", 0) == 0
    assert without_rows["input"][0]["dims"] == ["-1", "2"]


def test_repository_index(seen: dict[str, Any]) -> None:
    models = {model["name"]: model for model in seen["index"]}

    assert models["affine"] == {"name": "affine", "version": "7", "state": "READY"}
    assert models["labelled"]["state"] == "READY"
    assert models["broken"]["state"] == "UNAVAILABLE"
    assert models["broken"]["reason"].startswith("model.onnx: expected SHA-256")


@pytest.mark.parametrize("datatype", ECHOES)
def test_datatype_comes_back_as_it_went(seen: dict[str, Any], datatype: str) -> None:
    found = seen["datatypes"][datatype]

    assert found["datatype"] == datatype
    assert found["same"], found


def test_several_inputs_and_outputs(seen: dict[str, Any]) -> None:
    assert seen["several"] == {
        "model": ["arithmetic", "7", "one"],
        "sum": [[6.0] * 3] * 2,
        "product": [[5.0] * 3] * 2,
    }


def test_requested_outputs_alone_are_sent(seen: dict[str, Any]) -> None:
    assert seen["requested"] == ["product"]


def test_models_without_rows_and_of_any_size(seen: dict[str, Any]) -> None:
    assert seen["rows_or_none"] == [10.0, [3, 9]]


def test_asynchronous_calls(seen: dict[str, Any]) -> None:
    answers = seen["asynchronous"]

    assert answers.pop("unknown")[0] == NOT_FOUND
    assert answers == {str(number): [[2.0 * number + 1] * 4] for number in range(8)}


def test_cancelled_call(seen: dict[str, Any]) -> None:
    assert [status for status, _ in seen["cancelled"]] == ["StatusCode.CANCELLED"]


def test_stream_answers_by_id_and_survives_a_failure(seen: dict[str, Any]) -> None:
    answers = seen["stream"]

    assert "axis 1" in answers.pop("error")[1]
    assert answers == {f"id {n}": [[2.0 * n + 1] * 4] for n in (0, 1, 3, 4)}


def test_classification_gives_the_best_with_their_labels(seen: dict[str, Any]) -> None:
    found = seen["classification"]

    assert found["labelled"] == [
        ["9.000000:2:south", "7.000000:0:north"],
        ["3.000000:1:east", "1.000000:0:north"],
    ]
    assert found["affine"] == [["9.000000:2", "7.000000:0"], ["3.000000:1", "1.000000:0"]]


REFUSALS = {
    "datatype": (INVALID, "input 'x': expected FP32, got 'FP64'"),
    "shape": (INVALID, "input 'x': axis 1: expected 4, got 5"),
    "name": (INVALID, "'z'"),
    "rows": (INVALID, "expected at most 32 rows in a request, got 33"),
    "missing": (INVALID, "missing inputs: 'b'"),
    "output": (INVALID, "unknown outputs: 'nothing'"),
    "model": (NOT_FOUND, "unknown model 'unknown'"),
    "version": (NOT_FOUND, "no version 8"),
    "broken": (UNAVAILABLE, "'broken'"),
    "sequence": (UNIMPLEMENTED, "sequences are not offered"),
    "late": ("StatusCode.DEADLINE_EXCEEDED", ""),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_wrong_request_is_refused(seen: dict[str, Any], what: str) -> None:
    expected_status, text = REFUSALS[what]

    status, message = seen["refused"][what]

    assert status == expected_status
    assert text in message


def test_unsupported_calls_are_unimplemented(seen: dict[str, Any]) -> None:
    assert {status for status, _ in seen["unsupported"].values()} == {UNIMPLEMENTED}


def test_statistics_count_what_was_sent(seen: dict[str, Any]) -> None:
    statistics = seen["statistics"]

    assert statistics["change"] == {
        "rows": 6,
        "batches": 3,
        "success": 3,
        "queue": 3,
        "compute_infer": 3,
        "by size": 3,
    }
    assert {"affine", "labelled"} <= set(statistics["models"])
    assert "broken" not in statistics["models"]
    assert statistics["unknown"][0] == NOT_FOUND


TYPED: list[tuple[str, str, list[Any]]] = [
    ("BOOL", "bool_contents", [True, False, False, True]),
    ("UINT8", "uint_contents", [0, 1, 128, 255]),
    ("UINT16", "uint_contents", [0, 1, 2**15, 2**16 - 1]),
    ("UINT32", "uint_contents", [0, 1, 2**31, 2**32 - 1]),
    ("UINT64", "uint64_contents", [0, 1, 2**63, 2**64 - 1]),
    ("INT8", "int_contents", [-128, -1, 0, 127]),
    ("INT16", "int_contents", [-(2**15), -1, 0, 2**15 - 1]),
    ("INT32", "int_contents", [-(2**31), -1, 0, 2**31 - 1]),
    ("INT64", "int64_contents", [-(2**63), -1, 0, 2**63 - 1]),
    ("FP32", "fp32_contents", [0.5, -2.0, 2.0**127, float("inf")]),
    ("FP64", "fp64_contents", [0.1, -2.0, 1.7e308, float("inf")]),
    ("BYTES", "bytes_contents", [b"weir", b"", "größer".encode(), b"x" * 1000]),
]


@pytest.mark.parametrize(
    ("datatype", "field", "values"), TYPED, ids=[datatype for datatype, _, _ in TYPED]
)
def test_typed_contents_are_answered_raw(
    client: Client, datatype: str, field: str, values: list[Any]
) -> None:
    message = pb.ModelInferRequest(model_name=f"echo_{datatype}")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[1, 4])
    getattr(tensor.contents, field).extend(values)

    response = client.send(message).result()

    assert not response.outputs[0].HasField("contents")
    assert arrays(response)["y"].tolist() == [values]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_raw_bits_of_half_precision_come_back(client: Client, datatype: str) -> None:
    bits = np.array([[0x0000, 0x8000, 0x3C00, 0x7F80]], np.uint16)
    message = pb.ModelInferRequest(model_name=f"echo_{datatype}")
    message.inputs.add(name="x", datatype=datatype, shape=bits.shape)
    message.raw_input_contents.append(bits.tobytes())

    response = client.send(message).result()

    assert response.raw_output_contents[0] == bits.tobytes()


def test_failure_on_a_stream_carries_its_id(client: Client) -> None:
    messages = [
        request("affine", tensor("x", np.full((1, width), width, np.float32)), id=f"wide {width}")
        for width in (4, 5, 4)
    ]

    answers = list(client.stream(iter([message.SerializeToString() for message in messages])))

    errors = {answer.infer_response.id: answer.error_message for answer in answers}
    assert set(errors) == {"wide 4", "wide 5"}
    assert "axis 1" in errors["wide 5"] and not errors["wide 4"]
    finals = [answer.infer_response.parameters["triton_final_response"] for answer in answers]
    assert sum(final.bool_param for final in finals) == 2


def test_stream_that_asks_for_it_ends_with_the_status(client: Client) -> None:
    bad = request("affine", tensor("x", np.zeros((1, 5), np.float32))).SerializeToString()

    call = client.stream(iter([bad]), metadata=(("triton_grpc_error", "true"),))

    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "axis 1" in call.details()
