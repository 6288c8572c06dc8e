"""The unmodified `tritonclient` over HTTP against a gateway; its answers are those of gRPC."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

import weir
from tests.helpers.gateway import gateway
from tests.helpers.http_client import HttpClient
from tests.integration.harness import ANSWER_S, DTYPE_NAMES, Server
from tests.integration.triton_client import VALUES, error_of
from weir.protocol.datatypes import DATATYPES

ROW = np.zeros((1, 4), np.float32)
X = np.array([[3, 1, 4, 1.5], [0, 1, 0, 0]], np.float32)
FORMS = [
    (datatype, form)
    for datatype in VALUES
    for form in ("binary", "JSON")
    # tritonclient refuses this one; `test_json_is_read_as_the_datatype` sends it.
    if (datatype, form) != ("BF16", "JSON")
]


@pytest.fixture(scope="module")
def server(serve_house: Callable[[str], Server]) -> Server:
    """The server behind the gateway; its own transports are tested elsewhere."""
    return serve_house("completion-queue")


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    with gateway(server.target) as found:
        yield found


@pytest.fixture
def http(address: str) -> Iterator[Any]:
    """Triton's client of the gateway."""
    with triton.InferenceServerClient(address, network_timeout=2 * ANSWER_S) as client:
        yield client


@pytest.fixture
def oracle(server: Server) -> Iterator[weir.Client]:
    """The same server over gRPC."""
    with weir.Client(server.target, timeout_s=ANSWER_S) as client:
        yield client
    server.settle()


@pytest.fixture
def grpc_client(server: Server) -> Iterator[Any]:
    """Triton's client of the server itself."""
    with triton_grpc.InferenceServerClient(server.target) as client:
        yield client


def as_input(
    name: str, values: Any, datatype: str | None = None, *, is_binary: bool = True
) -> triton.InferInput:
    """An input with these values."""
    found = datatype or DTYPE_NAMES[values.dtype.name]
    tensor = triton.InferInput(name, list(values.shape), found)
    tensor.set_data_from_numpy(values, binary_data=is_binary)
    return tensor


def fetch(
    address: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    method: str = "",
) -> tuple[int, Mapping[str, str], Any]:
    """One request without any client of the protocol: its code, its headers and its JSON."""
    answer = HttpClient(address).ask(
        method or ("GET" if body is None else "POST"), path, body, headers
    )
    return answer.code, answer.headers, answer.json()


def test_only_ready_models_and_versions_are_ready(http: Any) -> None:
    assert http.is_server_live() and http.is_server_ready()
    assert http.is_model_ready("affine") and http.is_model_ready("affine", "7")
    assert http.is_model_ready("broken") is False
    assert http.is_model_ready("unknown") is False
    assert http.is_model_ready("affine", "8") is False


def test_metadata_and_configuration_are_those_of_grpc(http: Any, oracle: weir.Client) -> None:
    server = http.get_server_metadata()
    models = {name: http.get_model_metadata(name) for name in ("arithmetic", "labelled")}
    config = http.get_model_config("labelled", "1")
    patient = http.get_model_config("patient")

    expected = oracle.server_metadata()
    assert (server["name"], server["version"]) == (expected.name, expected.version)
    assert server["extensions"] == list(expected.extensions)
    assert "binary_tensor_data" in server["extensions"]
    for name, metadata in models.items():
        found = oracle.metadata(name)
        assert (metadata["versions"], metadata["platform"]) == (
            list(found.versions),
            found.platform,
        )
        for kind, tensors in (("inputs", found.inputs), ("outputs", found.outputs)):
            assert metadata[kind] == [
                {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
                for each in tensors
            ]
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32" and config["input"][0]["dims"] == [4]
    assert config["output"][0]["label_filename"] == "labels.txt"
    assert patient["dynamic_batching"]["max_queue_delay_microseconds"] == 86400 * 10**6


def test_repository_index_is_that_of_grpc(http: Any, address: str, oracle: weir.Client) -> None:
    index = http.get_model_repository_index()
    _, _, ready = fetch(address, "/v2/repository/index", {"ready": True})

    def entries(*, ready: bool = False) -> list[tuple[str, str, str]]:
        return [(each.name, each.version, each.state) for each in oracle.index(ready=ready)]

    assert [(each["name"], each["version"], each["state"]) for each in index] == entries()
    assert {each["state"] for each in ready} == {"READY"}
    assert [each["name"] for each in ready] == [name for name, _, _ in entries(ready=True)]
    broken = next(each for each in index if each["name"] == "broken")
    assert broken["reason"].startswith("model.onnx: expected SHA-256")


def test_statistics_are_those_of_grpc(http: Any, oracle: weir.Client, server: Server) -> None:
    http.infer("labelled", [as_input("x", X)])
    server.settle()

    labelled = http.get_inference_statistics("labelled")["model_stats"]
    everything = http.get_inference_statistics()["model_stats"]

    (expected,) = oracle.statistics("labelled").model_stats
    assert [each["name"] for each in labelled] == ["labelled"]
    assert labelled[0]["inference_count"] == expected.inference_count > 0
    success = labelled[0]["inference_stats"]["success"]
    assert success == {
        "count": expected.inference_stats.success.count,
        "ns": expected.inference_stats.success.ns,
    }
    assert {"affine", "labelled"} <= {each["name"] for each in everything}


@pytest.mark.parametrize("output", ["binary output", "JSON output"])
@pytest.mark.parametrize(("datatype", "form"), FORMS)
def test_datatype_comes_back_as_it_went(
    http: Any, oracle: weir.Client, datatype: str, form: str, output: str
) -> None:
    values = VALUES[datatype]
    answer = http.infer(
        f"echo_{datatype}",
        [as_input("x", values, datatype, is_binary=form == "binary")],
        outputs=[triton.InferRequestedOutput("y", binary_data=output == "binary output")],
    )

    if datatype == "BYTES" and output == "binary output":
        values = np.array([[text.encode() for text in row] for row in values], object)
    found = answer.get_output("y")
    assert (found["datatype"], found["shape"]) == (datatype, [1, 4])
    assert ("data" in found) == (output == "JSON output")
    np.testing.assert_array_equal(answer.as_numpy("y"), values)
    expected = oracle.infer(f"echo_{datatype}", {"x": values})["y"]
    bits = answer.as_numpy("y")
    if datatype == "BYTES":
        bits = np.array(
            [[text if isinstance(text, bytes) else text.encode() for text in row] for row in bits],
            object,
        )
    elif datatype == "BF16":
        bits = bits.view(np.uint16)
    np.testing.assert_array_equal(bits, expected, strict=True)


HALVES = [0.1, -2, 65504, 1e-8, 1.00390625]
JSON_VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "FP16": (HALVES[:4], np.array(HALVES[:4], np.float16).tolist()),
    "BF16": (HALVES[1:], np.array(HALVES[1:], ml_dtypes.bfloat16).astype(float).tolist()),
    "UINT64": ([[0, 1], [2**63, 2**64 - 1]], [0, 1, 2**63, 2**64 - 1]),
    "BOOL": ([[True, False], [False, True]], [True, False, False, True]),
    "INT8": ([[[-128], [0]], [[1], [127]]], [-128, 0, 1, 127]),
    "BYTES": ([["é", ""], ["\0", "x"]], ["é", "", "\0", "x"]),
}


@pytest.mark.parametrize("datatype", JSON_VALUES)
def test_json_is_read_as_the_datatype(address: str, datatype: str) -> None:
    """Values are rounded to the nearest, and nested arrays are row-major."""
    values, expected = JSON_VALUES[datatype]

    code, _, answer = fetch(
        address,
        f"/v2/models/echo_{datatype}/infer",
        {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 4], "data": values}]},
    )

    assert code == 200, answer
    (output,) = answer["outputs"]
    if datatype in {"BF16", "FP16"}:
        # Written as the shortest number that is read back as the same value.
        dtype = ml_dtypes.bfloat16 if datatype == "BF16" else np.float16
        assert np.array(output["data"], dtype).tolist() == expected
    else:
        assert output["data"] == expected


@pytest.mark.parametrize(
    "values",
    [
        np.array([[b"he\0llo", b"\0", b"end\0\0", b"\0\1\2\3"]], object),
        np.array([[b"\0\1\2\3"] * 4], np.bytes_),
    ],
    ids=["objects", "fixed lengths"],
)
def test_strings_may_hold_nuls(http: Any, values: Any) -> None:
    answer = http.infer("echo_BYTES", [as_input("x", values, "BYTES")])

    assert answer.as_numpy("y").tolist() == values.tolist()


@pytest.mark.parametrize("form", ["binary", "JSON"])
def test_empty_tensor_comes_back(http: Any, oracle: weir.Client, form: str) -> None:
    values = np.zeros((2, 0), np.float32)
    outputs = [triton.InferRequestedOutput("y", binary_data=form == "binary")]

    answer = http.infer(
        "free", [as_input("x", values, is_binary=form == "binary")], outputs=outputs
    )

    assert answer.get_output("y")["shape"] == [2, 0]
    assert answer.as_numpy("y").shape == oracle.infer("free", {"x": values})["y"].shape == (2, 0)


@pytest.mark.parametrize("form", ["binary", "JSON"])
def test_answer_of_rank_0_comes_back(http: Any, oracle: weir.Client, form: str) -> None:
    values = np.ones((5, 2), np.float32)
    outputs = [triton.InferRequestedOutput("y", binary_data=form == "binary")]

    answer = http.infer("without_rows", [as_input("x", values)], outputs=outputs)

    expected = oracle.infer("without_rows", {"x": values})["y"]
    np.testing.assert_array_equal(answer.as_numpy("y"), expected, strict=True)


def test_several_inputs_and_outputs(http: Any) -> None:
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)

    # In the other order than the graph's, in both forms at once, and the answer too.
    answer = http.infer(
        "arithmetic",
        [as_input("b", b, is_binary=False), as_input("a", a)],
        outputs=[
            triton.InferRequestedOutput("product", binary_data=False),
            triton.InferRequestedOutput("sum"),
        ],
        request_id="one",
        model_version="7",
    )

    response = answer.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (
        "arithmetic",
        "7",
        "one",
    )
    np.testing.assert_array_equal(answer.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(answer.as_numpy("product"), a * b)


def test_requested_outputs_alone_are_sent(http: Any) -> None:
    a = np.ones((1, 3), np.float32)

    answer = http.infer(
        "arithmetic",
        [as_input("a", a), as_input("b", a)],
        outputs=[triton.InferRequestedOutput("product")],
    )

    assert [output["name"] for output in answer.get_response()["outputs"]] == ["product"]


def test_asynchronous_calls_are_answered(address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=4) as client:
        calls = [
            client.async_infer(
                "affine", [as_input("x", np.full((1, 4), n, np.float32))], request_id=str(n)
            )
            for n in range(8)
        ]
        unknown = client.async_infer("unknown", [as_input("x", ROW)])
        answers = [call.get_result() for call in calls]

        for n, answer in enumerate(answers):
            assert answer.get_response()["id"] == str(n)
            assert answer.as_numpy("y").tolist() == [[2.0 * n + 1] * 4]
        assert error_of(unknown.get_result)[0] == "404"


def test_asyncio_client_calls(address: str, oracle: weir.Client) -> None:
    async def call() -> tuple[bool, list[Any], Any]:
        async with triton_aio.InferenceServerClient(address) as client:
            is_ready = await client.is_model_ready("affine")
            calls = [
                client.infer(
                    "affine",
                    [as_input("x", X + n)],
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                for n, algorithm in enumerate((None, "gzip", "deflate"))
            ]
            answers = await asyncio.gather(*calls)
            return is_ready, answers, await client.get_model_metadata("affine")

    is_ready, answers, metadata = asyncio.run(call())

    assert is_ready and metadata["name"] == "affine"
    for n, answer in enumerate(answers):
        expected = oracle.infer("affine", {"x": X + n})["y"]
        np.testing.assert_array_equal(answer.as_numpy("y"), expected)


@pytest.mark.parametrize("form", ["binary", "JSON"])
@pytest.mark.parametrize("model", ["labelled", "affine"])
def test_classification_is_that_of_grpc(http: Any, grpc_client: Any, model: str, form: str) -> None:
    outputs = [triton.InferRequestedOutput("y", binary_data=form == "binary", class_count=2)]

    answer = http.infer(model, [as_input("x", X)], outputs=outputs)

    tensor = triton_grpc.InferInput("x", X.shape, "FP32")
    tensor.set_data_from_numpy(X)
    wanted = [triton_grpc.InferRequestedOutput("y", class_count=2)]
    expected = grpc_client.infer(model, [tensor], outputs=wanted).as_numpy("y")
    texts = answer.as_numpy("y").tolist()
    if form == "binary":
        texts = [[text.decode() for text in row] for row in texts]
    assert texts == [[text.decode() for text in row] for row in expected]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("form", ["binary", "JSON"])
def test_bodies_are_compressed_both_ways(http: Any, algorithm: str, form: str) -> None:
    # Large enough to be worth it.
    values = np.arange(4096, dtype=np.float32).reshape(4, 1024)

    answer = http.infer(
        "free",
        [as_input("x", values, is_binary=form == "binary")],
        outputs=[triton.InferRequestedOutput("y", binary_data=form == "binary")],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )

    np.testing.assert_array_equal(answer.as_numpy("y"), values, strict=True)


def test_answer_is_compressed_for_a_client_that_takes_it(address: str) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2048], "data": [0.0] * 2048}]}
    with closing(HTTPConnection(address, timeout=ANSWER_S)) as connection:
        connection.request(
            "POST", "/v2/models/free/infer", json.dumps(body), {"Accept-Encoding": "br, gzip"}
        )
        response = connection.getresponse()
        size_bytes = len(response.read())

    assert response.getheader("content-encoding") == "gzip"
    assert size_bytes < 1000


def asked(model: str, values: Any = ROW, name: str = "x", **options: Any) -> Callable[[Any], Any]:
    """A call of Triton's client, of either protocol."""

    def ask(client: Any) -> Any:
        kind = triton if isinstance(client, triton.InferenceServerClient) else triton_grpc
        tensor = kind.InferInput(name, list(values.shape), DTYPE_NAMES[values.dtype.name])
        tensor.set_data_from_numpy(values)
        given = dict(options)
        if "outputs" in given:
            given["outputs"] = [kind.InferRequestedOutput(each) for each in given["outputs"]]
        return client.infer(model, [tensor], **given)

    return ask


REFUSALS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "datatype": (asked("affine", ROW.astype(np.float64)), "400"),
    "shape": (asked("affine", np.zeros((1, 5), np.float32)), "400"),
    "rank": (asked("affine", np.zeros(4, np.float32)), "400"),
    "name": (asked("affine", name="z"), "400"),
    "rows": (asked("affine", np.zeros((33, 4), np.float32)), "400"),
    "missing": (asked("arithmetic", np.zeros((1, 3), np.float32), "a"), "400"),
    "output": (asked("affine", outputs=["nothing"]), "400"),
    "model": (asked("unknown"), "404"),
    "version": (asked("affine", model_version="8"), "404"),
    "version that is no label": (asked("affine", model_version="canary"), "404"),
    "broken": (asked("broken"), "503"),
    "string that is not UTF-8": (
        asked("echo_BYTES", np.array([[b"\xff", b"", b"", b""]], object)),
        "400",
    ),
    "sequence": (asked("affine", sequence_id=5, sequence_start=True), "501"),
    "token out of range": (asked("gather", np.array([[99]]), "tokens"), "400"),
    "not finite": (asked("strict", np.full((1, 4), np.nan, np.float32)), "400"),
    "late": (asked("patient", timeout=1), "504"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_wrong_request_is_refused_with_the_words_of_grpc(
    http: Any, grpc_client: Any, what: str
) -> None:
    ask, expected_code = REFUSALS[what]

    code, message = error_of(lambda: ask(http))

    _, expected = error_of(lambda: ask(grpc_client))
    assert code == expected_code
    assert message == expected


INPUT: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}
BINARY = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
WHOLE = {**INPUT, "datatype": "INT8"}

WRONG_BODIES: dict[str, tuple[object, str]] = {
    "no JSON": (b"{", "body: expected JSON: "),
    "empty": (b"", "body: expected JSON: "),
    "no object": ([], "body: expected a JSON object, got an array"),
    "no inputs": ({}, "inputs: expected an array, got null"),
    "inputs": ({"inputs": {}}, "inputs: expected an array, got an object"),
    "input": ({"inputs": [3]}, "inputs[0]: expected an object, got a number"),
    "field": ({"inputs": [], "input": []}, "input: expected one of "),
    "input's field": ({"inputs": [{**INPUT, "dtype": "FP32"}]}, "inputs[0].dtype: expected one of"),
    "id": ({"id": 5, "inputs": [INPUT]}, "id: expected a string, got a number"),
    "datatype": (
        {"inputs": [{**INPUT, "datatype": "FLOAT"}]},
        "inputs[0] ('x').datatype: expected one of BOOL, ",
    ),
    "shape": ({"inputs": [{**INPUT, "shape": [-1, 4]}]}, "inputs[0] ('x').shape: expected numbers"),
    "huge shape": (
        {"inputs": [{**INPUT, "shape": [2**62, 2**62]}]},
        f"inputs[0] ('x').data: expected {2**124} values",
    ),
    "too few values": (
        {"inputs": [{**INPUT, "data": [0, 0, 0]}]},
        "inputs[0] ('x').data: expected 4 values of shape [1, 4], got 3",
    ),
    "a text": (
        {"inputs": [{**INPUT, "data": [0, 0, 0, "0"]}]},
        "inputs[0] ('x').data: expected numbers (FP32), got a string",
    ),
    "null": (
        {"inputs": [{**INPUT, "data": [0, 0, 0, None]}]},
        "inputs[0] ('x').data: expected numbers (FP32), got null",
    ),
    "a boolean": (
        {"inputs": [{**INPUT, "data": [0, 0, 0, True]}]},
        "inputs[0] ('x').data: expected numbers (FP32), got a boolean",
    ),
    "a fraction": (
        {"inputs": [{**WHOLE, "data": [0, 0, 0, 1.5]}]},
        "inputs[0] ('x').data: expected whole numbers (INT8), got 1.5",
    ),
    "out of range": (
        {"inputs": [{**WHOLE, "data": [0, 0, 0, 128]}]},
        "inputs[0] ('x').data: expected values that INT8 can hold, got 128",
    ),
    "too large for FP32": (
        {"inputs": [{**INPUT, "data": [0, 0, 0, 1e39]}]},
        "inputs[0] ('x').data: expected values that FP32 can hold, got 1e+39",
    ),
    "too large for FP16": (
        {"inputs": [{**INPUT, "datatype": "FP16", "data": [0, 0, 0, 65520]}]},
        "inputs[0] ('x').data: expected values that FP16 can hold, got 65520",
    ),
    "number for a text": (
        {"inputs": [{**INPUT, "datatype": "BYTES"}]},
        "inputs[0] ('x').data: expected strings (BYTES), got a number",
    ),
    "no data": (
        {"inputs": [{**INPUT, "data": None}]},
        "inputs[0] ('x'): expected either data or the parameter binary_data_size, got none",
    ),
    "data twice": (
        {"inputs": [{**BINARY, "data": [0, 0, 0, 0]}]},
        "inputs[0] ('x'): expected either data or the parameter binary_data_size, got both",
    ),
    "binary data without any": (
        {"inputs": [BINARY]},
        "inputs[0] ('x').parameters.binary_data_size: expected a number of bytes, at most the 0",
    ),
    "parameter": (
        {"inputs": [INPUT], "parameters": {"a": [1]}},
        "parameters.a: expected a boolean, a number or a string, got an array",
    ),
    "output": (
        {"inputs": [INPUT], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        "outputs[0].parameters.binary_data: expected a boolean, got a number",
    ),
}


@pytest.mark.parametrize("what", WRONG_BODIES)
def test_wrong_body_is_refused_by_field(address: str, what: str) -> None:
    body, text = WRONG_BODIES[what]

    code, _, error = fetch(address, "/v2/models/affine/infer", body)

    assert (code, error["status"]) == (400, "INVALID_ARGUMENT"), error
    assert error["error"].startswith(text)


@pytest.mark.parametrize(
    ("length", "tail", "text"),
    [
        ("{0}", bytes(12), "inputs[0] ('x').parameters.binary_data_size: expected a number of"),
        ("{0}", bytes(20), "body: expected 16 bytes of binary data (binary_data_size of the"),
        ("9999", bytes(16), "Inference-Header-Content-Length: expected at most the "),
        ("-1", bytes(16), "Inference-Header-Content-Length: expected a number of bytes, got '-1'"),
        ("ten", bytes(16), "Inference-Header-Content-Length: expected a number of bytes"),
        ("1", bytes(16), "body: expected JSON: "),
    ],
    ids=["too few", "too many", "beyond the end", "negative", "no number", "within the JSON"],
)
def test_wrong_lengths_are_refused(address: str, length: str, tail: bytes, text: str) -> None:
    header = json.dumps({"inputs": [BINARY]}).encode()

    code, _, error = fetch(
        address,
        "/v2/models/affine/infer",
        header + tail,
        {"Inference-Header-Content-Length": length.format(len(header))},
    )

    assert code == 400
    assert error["error"].startswith(text)


def test_binary_contents_of_another_size_get_the_words_of_grpc(
    address: str, oracle: weir.Client
) -> None:
    tensor = {**BINARY, "parameters": {"binary_data_size": 12}}
    header = json.dumps({"inputs": [tensor]}).encode()

    code, _, error = fetch(
        address,
        "/v2/models/affine/infer",
        header + bytes(12),
        {"Inference-Header-Content-Length": str(len(header))},
    )

    assert code == 400
    assert error["error"].startswith("input 'x': ")


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.get_system_shared_memory_status("region"),
        lambda client: client.register_system_shared_memory("a", "/a", 8),
        lambda client: client.unregister_system_shared_memory(),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.unregister_cuda_shared_memory("region"),
        lambda client: client.get_trace_settings(),
        lambda client: client.get_trace_settings("affine"),
        lambda client: client.update_trace_settings(settings={"trace_rate": "1"}),
        lambda client: client.get_log_settings(),
        lambda client: client.update_log_settings({"log_info": True}),
    ],
    ids=[
        *("system status", "region status", "register", "unregister", "cuda status", "cuda"),
        *("trace", "model trace", "set trace", "log", "set log"),
    ],
)
def test_extensions_of_triton_alone_are_unimplemented(http: Any, ask: Callable[[Any], Any]) -> None:
    code, message = error_of(lambda: ask(http))

    assert code == "501"
    assert message.endswith(": not offered")


def test_tensors_in_shared_memory_are_unimplemented(http: Any) -> None:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_shared_memory("region", 16)
    output = triton.InferRequestedOutput("y")
    output.set_shared_memory("region", 16)

    for inputs, outputs in (([tensor], []), ([as_input("x", ROW)], [output])):
        code, message = error_of(partial(http.infer, "affine", inputs, outputs=outputs))
        assert code == "501"
        assert message.endswith("shared memory is not offered")


@pytest.mark.parametrize("name", ["load", "unload"])
def test_model_control_that_is_off_is_unimplemented(http: Any, grpc_client: Any, name: str) -> None:
    code, message = error_of(lambda: getattr(http, f"{name}_model")("affine"))

    _, expected = error_of(lambda: getattr(grpc_client, f"{name}_model")("affine"))
    assert (code, message) == ("501", expected)


# What the clients of others send.


def test_model_named_in_the_body_and_nulls_are_accepted(address: str) -> None:
    """KServe's client names the model in the body; clients with typed fields send nulls."""
    body = {
        "id": None,
        "model_name": "affine",
        "model_version": None,
        "parameters": None,
        "inputs": [{**INPUT, "parameters": None}],
        "outputs": None,
    }

    code, _, answer = fetch(address, "/v2/models/affine/infer", body)

    assert code == 200, answer
    assert answer == {
        "model_name": "affine",
        "model_version": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [1.0] * 4}],
    }


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        ("affine", X[:1].tobytes(), 2 * X[:1] + 1),
        ("affine", X.tobytes(), 2 * X + 1),
        ("free", np.ones((1, 9), np.float32).tobytes(), np.ones((1, 9))),
    ],
    ids=["one row", "two rows", "length of a row"],
)
def test_body_of_one_input_alone_is_answered_in_binary(
    address: str, model: str, body: bytes, expected: Any
) -> None:
    with closing(HTTPConnection(address, timeout=ANSWER_S)) as connection:
        headers = {"Inference-Header-Content-Length": "0"}
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        response = connection.getresponse()
        answer = triton.InferenceServerClient.parse_response_body(
            response.read(),
            header_length=int(response.getheader("Inference-Header-Content-Length") or 0),
        )

    np.testing.assert_array_equal(answer.as_numpy("y"), expected)


@pytest.mark.parametrize(
    ("model", "size_bytes", "text"),
    [
        ("affine", 15, "body: expected the contents of x, FP32 [-1, 4]"),
        ("arithmetic", 16, "Inference-Header-Content-Length: 0 is for a model of one input"),
    ],
)
def test_body_that_tells_no_shape_is_refused(
    address: str, model: str, size_bytes: int, text: str
) -> None:
    code, _, error = fetch(
        address,
        f"/v2/models/{model}/infer",
        bytes(size_bytes),
        {"Inference-Header-Content-Length": "0"},
    )

    assert code == 400
    assert error["error"].startswith(text)


@pytest.mark.parametrize(
    "path",
    [
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats"),
        *("/v2/models/affine", "/v2/models/affine/ready", "/v2/models/affine/config"),
        *("/v2/models/affine/stats", "/v2/models/affine/versions/7"),
        *("/v2/models/affine/versions/7/ready", "/v2/models/affine/versions/7/config"),
        "/v2/models/affine/versions/7/stats",
    ],
)
def test_slash_at_the_end_changes_nothing(address: str, path: str) -> None:
    plain, slashed = fetch(address, path), fetch(address, f"{path}/")

    assert plain[0] == slashed[0] == 200
    assert plain[2].keys() == slashed[2].keys()


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v2/models/affine/nothing", 404),
        ("GET", "/v2/models/affine/infer", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/models/unknown", 404),
        ("GET", "/v2/models/affine/versions/8/config", 404),
        ("GET", "/v2/models/unknown/stats", 404),
    ],
)
def test_error_is_json_wherever_it_comes_from(
    address: str, method: str, path: str, code: int
) -> None:
    found, headers, error = fetch(address, path, method=method)

    assert found == code
    assert headers["content-type"] == "application/json"
    assert set(error) == {"error", "status"} and error["error"]
    assert ("allow" in headers) == (code == 405)


def test_every_datatype_is_tested() -> None:
    assert set(VALUES) == set(DATATYPES)
