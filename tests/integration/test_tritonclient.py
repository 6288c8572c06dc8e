"""The unmodified `tritonclient` against plain models and a bundle, in the process of the tests."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.integration.harness import ANSWER_S, Client, Server, arrays, request, tensor
from tests.integration.triton_client import VALUES, Answers, as_input, error_of
from weir.protocol import inference_pb2 as pb

INVALID, NOT_FOUND = "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"
UNAVAILABLE, UNIMPLEMENTED = "StatusCode.UNAVAILABLE", "StatusCode.UNIMPLEMENTED"

ROW = np.zeros((1, 4), np.float32)


@pytest.fixture
def neighbour(house: Server) -> Iterator[triton.InferenceServerClient]:
    """Triton's client of the house."""
    with triton.InferenceServerClient(house.target) as client:
        yield client
    house.settle()


def test_only_ready_models_and_versions_are_ready(neighbour: Any) -> None:
    assert neighbour.is_server_live() and neighbour.is_server_ready()
    assert neighbour.is_model_ready("affine") and neighbour.is_model_ready("affine", "7")
    assert neighbour.is_model_ready("broken") is False
    assert neighbour.is_model_ready("unknown") is False
    assert neighbour.is_model_ready("affine", "8") is False


def test_metadata_names_versions_and_tensors(neighbour: Any) -> None:
    server = neighbour.get_server_metadata()
    arithmetic = neighbour.get_model_metadata("arithmetic", as_json=True)

    assert server.name == "weir" and "statistics" in server.extensions
    assert arithmetic["versions"] == ["7"]
    assert arithmetic["inputs"] == [
        {"name": name, "datatype": "FP32", "shape": ["-1", "3"]} for name in ("a", "b")
    ]
    assert [output["name"] for output in arithmetic["outputs"]] == ["sum", "product"]
    assert neighbour.get_model_metadata("labelled").versions == ["1"]
    assert error_of(lambda: neighbour.get_model_metadata("broken"))[0] == UNAVAILABLE


def test_config_has_batch_size_dims_and_files(neighbour: Any) -> None:
    labelled, patient, without_rows, pictures = (
        neighbour.get_model_config(name, as_json=True)["config"]
        for name in ("labelled", "patient", "without_rows", "colours")
    )

    assert labelled["max_batch_size"] == 8
    assert labelled["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert labelled["output"][0]["label_filename"] == "labels.txt"
    assert patient["max_batch_size"] == 2
    assert patient["dynamic_batching"]["max_queue_delay_microseconds"] == str(86400 * 10**6)
    assert without_rows.get("max_batch_size", 0) == 0
    assert without_rows["input"][0]["dims"] == ["-1", "2"]
    assert pictures["input"][0]["format"] == "FORMAT_NHWC"


def test_repository_index_has_states_and_reasons(neighbour: Any) -> None:
    index = neighbour.get_model_repository_index(as_json=True)["models"]

    models = {model["name"]: model for model in index}
    assert models["affine"] == {"name": "affine", "version": "7", "state": "READY"}
    assert models["labelled"]["state"] == "READY"
    assert models["broken"]["state"] == "UNAVAILABLE"
    assert models["broken"]["reason"].startswith("model.onnx: expected SHA-256")


@pytest.mark.parametrize("datatype", VALUES)
def test_datatype_comes_back_as_it_went(neighbour: Any, datatype: str) -> None:
    values = VALUES[datatype]

    answer = neighbour.infer(f"echo_{datatype}", [as_input("x", values, datatype)])

    if datatype == "BYTES":
        values = np.array([[text.encode() for text in row] for row in values], object)
    assert answer.get_output("y").datatype == datatype
    np.testing.assert_array_equal(answer.as_numpy("y"), values, strict=datatype != "BF16")


@pytest.mark.parametrize(
    "values",
    [
        np.array([[b"he\0llo", b"\0", b"end\0\0", b"\0\1\2\3"]], object),
        np.array([[b"\0\1\2\3"] * 4], np.bytes_),
    ],
    ids=["objects", "fixed lengths"],
)
def test_strings_may_hold_nuls(neighbour: Any, values: Any) -> None:
    answer = neighbour.infer("echo_BYTES", [as_input("x", values, "BYTES")])

    assert answer.as_numpy("y").tolist() == values.tolist()


def test_several_inputs_and_outputs(neighbour: Any) -> None:
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)

    # In the other order than the graph's.
    answer = neighbour.infer(
        "arithmetic", [as_input("b", b), as_input("a", a)], request_id="one", model_version="7"
    )

    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("arithmetic", "7", "one")
    np.testing.assert_array_equal(answer.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(answer.as_numpy("product"), a * b)


def test_requested_outputs_alone_are_sent(neighbour: Any) -> None:
    a = np.ones((1, 3), np.float32)

    answer = neighbour.infer(
        "arithmetic",
        [as_input("a", a), as_input("b", a)],
        outputs=[triton.InferRequestedOutput("product")],
    )

    assert [output.name for output in answer.get_response().outputs] == ["product"]


def test_models_without_rows_and_of_any_size_answer(neighbour: Any) -> None:
    total = neighbour.infer("without_rows", [as_input("x", np.ones((5, 2), np.float32))])
    free = neighbour.infer("free", [as_input("x", np.ones((3, 9), np.float32))])

    assert total.as_numpy("y") == 10.0
    assert free.as_numpy("y").shape == (3, 9)


def test_asynchronous_calls_are_answered_by_id(neighbour: Any) -> None:
    answers = Answers()

    for number in range(8):
        values = np.full((1, 4), number, np.float32)
        neighbour.async_infer("affine", [as_input("x", values)], answers, request_id=str(number))
    neighbour.async_infer("unknown", [as_input("x", values)], answers)

    results, errors = zip(*(answers.next() for _ in range(9)), strict=True)
    assert {
        result.get_response().id: result.as_numpy("y").tolist() for result in results if result
    } == {str(number): [[2.0 * number + 1] * 4] for number in range(8)}
    assert [error.status() for error in errors if error] == [NOT_FOUND]


def test_cancelled_call_ends_with_cancelled(neighbour: Any) -> None:
    answers = Answers()

    neighbour.async_infer("patient", [as_input("x", ROW)], answers).cancel()

    _, error = answers.next()
    assert error.status() == "StatusCode.CANCELLED"


def test_stream_answers_by_id_and_survives_a_failure(neighbour: Any) -> None:
    answers = Answers()

    neighbour.start_stream(answers)
    for number in range(5):
        width = 3 if number == 2 else 4
        values = np.full((1, width), number, np.float32)
        neighbour.async_stream_infer("affine", [as_input("x", values)], request_id=f"id {number}")
    results, errors = zip(*(answers.next() for _ in range(5)), strict=True)
    neighbour.stop_stream()

    assert {
        result.get_response().id: result.as_numpy("y").tolist() for result in results if result
    } == {f"id {n}": [[2.0 * n + 1] * 4] for n in (0, 1, 3, 4)}
    (error,) = filter(None, errors)
    assert "axis 1" in error.message()


@pytest.mark.parametrize(
    ("model", "best"),
    [
        (
            "labelled",
            [["9.000000:2:south", "7.000000:0:north"], ["3.000000:1:east", "1.000000:0:north"]],
        ),
        ("affine", [["9.000000:2", "7.000000:0"], ["3.000000:1", "1.000000:0"]]),
    ],
    ids=["labels", "no labels"],
)
def test_classification_gives_the_best(neighbour: Any, model: str, best: list[list[str]]) -> None:
    values = np.array([[3, 1, 4, 1.5], [0, 1, 0, 0]], np.float32)
    outputs = [triton.InferRequestedOutput("y", class_count=2)]

    answer = neighbour.infer(model, [as_input("x", values)], outputs=outputs)

    assert [[text.decode() for text in row] for row in answer.as_numpy("y")] == best


def asked(model: str, values: Any = ROW, name: str = "x", **options: Any) -> Callable[[Any], Any]:
    return lambda client: client.infer(model, [as_input(name, values)], **options)


REFUSALS = {
    "datatype": (
        asked("affine", ROW.astype(np.float64)), INVALID, "input 'x': expected FP32, got 'FP64'"
    ),
    "shape": (
        asked("affine", np.zeros((1, 5), np.float32)),
        INVALID,
        "input 'x': axis 1: expected 4, got 5",
    ),
    "name": (asked("affine", name="z"), INVALID, "'z'"),
    "rows": (
        asked("affine", np.zeros((33, 4), np.float32)),
        INVALID,
        "expected at most 32 rows in a request, got 33",
    ),
    "missing": (
        asked("arithmetic", np.zeros((1, 3), np.float32), "a"), INVALID, "missing inputs: 'b'"
    ),
    "output": (
        asked("affine", outputs=[triton.InferRequestedOutput("nothing")]),
        INVALID,
        "unknown outputs: 'nothing'",
    ),
    "model": (asked("unknown"), NOT_FOUND, "unknown model 'unknown'"),
    "version": (asked("affine", model_version="8"), NOT_FOUND, "no version 8"),
    "broken": (asked("broken"), UNAVAILABLE, "'broken'"),
    "sequence": (
        asked("affine", sequence_id=5, sequence_start=True),
        UNIMPLEMENTED,
        "sequences are not offered",
    ),
    "late": (asked("patient", timeout=1), "StatusCode.DEADLINE_EXCEEDED", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_wrong_request_is_refused(neighbour: Any, what: str) -> None:
    ask, expected_status, text = REFUSALS[what]

    status, message = error_of(lambda: ask(neighbour))

    assert status == expected_status
    assert text in message


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.load_model("affine"),
        lambda client: client.unload_model("affine"),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.register_system_shared_memory("a", "/a", 8),
        lambda client: client.get_trace_settings(),
        lambda client: client.get_log_settings(),
    ],
    ids=["load", "unload", "system memory", "cuda memory", "register", "trace", "log"],
)
def test_unsupported_calls_are_unimplemented(neighbour: Any, ask: Callable[[Any], Any]) -> None:
    assert error_of(lambda: ask(neighbour))[0] == UNIMPLEMENTED


def test_statistics_count_what_was_sent(neighbour: Any) -> None:
    values = as_input("x", np.zeros((2, 4), np.float32))
    before = counts(neighbour)

    for _ in range(3):
        neighbour.infer("labelled", [values])

    after = counts(neighbour)
    end_s = time.monotonic() + ANSWER_S
    # A batch is counted a moment after its answer was sent.
    while after["batches"] < before["batches"] + 3 and time.monotonic() < end_s:
        after = counts(neighbour)
    assert {name: after[name] - before[name] for name in after} == {
        "rows": 6,
        "batches": 3,
        "success": 3,
        "queue": 3,
        "compute_infer": 3,
        "by size": 3,
    }
    models = {model.name for model in neighbour.get_inference_statistics().model_stats}
    assert {"affine", "labelled"} <= models and "broken" not in models
    assert error_of(lambda: neighbour.get_inference_statistics("unknown"))[0] == NOT_FOUND


def counts(client: Any) -> dict[str, int]:
    statistics = client.get_inference_statistics("labelled").model_stats[0]
    stats = statistics.inference_stats
    return {
        "rows": statistics.inference_count,
        "batches": statistics.execution_count,
        "success": stats.success.count,
        "queue": stats.queue.count,
        "compute_infer": stats.compute_infer.count,
        "by size": sum(batch.compute_infer.count for batch in statistics.batch_stats),
    }


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
