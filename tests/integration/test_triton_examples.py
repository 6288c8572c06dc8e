"""The calls of Triton's example programs, on models of the forms that these programs expect.

The programs of https://github.com/triton-inference-server/client that are not named here need what
docs/serving.md lists as not offered.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor

from tests.helpers import onnx_models
from tests.integration.conftest import running_to_the_end
from tests.integration.harness import ANSWER_S, Server
from tests.integration.triton_client import Answers, as_input, error_of

SIMPLE = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_KIND dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_KIND dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_KIND dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_KIND dims: [ 16 ] }
]
"""
IDENTITY = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_STRING dims: [ -1 ] } ]
"""
PICTURES = """
platform: "onnxruntime_onnx"
max_batch_size: 4
input [ { name: "image" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ 8, 8, 3 ] } ]
output [
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "colours.txt" }
]
"""
# The form of Triton's `densenet_onnx`: a batch of one in the graph, and no batch axis in requests.
DENSENET = """
platform: "onnxruntime_onnx"
max_batch_size: 0
input [
  {
    name: "x"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 4, 4 ]
    reshape { shape: [ 1, 3, 4, 4 ] }
  }
]
output [
  {
    name: "y"
    data_type: TYPE_FP32
    dims: [ 48 ]
    reshape { shape: [ 1, 3, 4, 4 ] }
    label_filename: "labels.txt"
  }
]
"""

A, B = np.arange(16, dtype=np.int32)[None], np.ones((1, 16), np.int32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("examples")
    models = {
        "simple": (onnx_models.sum_and_difference(TensorProto.INT32), SIMPLE, "INT32"),
        "simple_int8": (onnx_models.sum_and_difference(TensorProto.INT8), SIMPLE, "INT8"),
        "simple_string": (onnx_models.sum_and_difference(TensorProto.STRING), SIMPLE, "STRING"),
        "simple_identity": (
            onnx_models.echo(TensorProto.STRING, ("batch", "items")), IDENTITY, "STRING",
        ),
        "inception": (onnx_models.colours(), PICTURES, "UINT8"),
        "densenet": (onnx_models.echo(axes=(1, 3, 4, 4)), DENSENET, "FP32"),
    }  # fmt: skip
    for name, (graph, config, kind) in models.items():
        onnx_models.write_plain(root, name, graph)
        (root / name / "config.pbtxt").write_text(config.replace("TYPE_KIND", f"TYPE_{kind}"))
    (root / "inception" / "colours.txt").write_text("red\ngreen\nblue\n")
    (root / "densenet" / "labels.txt").write_text("".join(f"class {n}\n" for n in range(48)))
    with running_to_the_end(root, tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.target) as client:
        yield client


@pytest.fixture
def stub(server: Server) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """The generated stub, as `grpc_client.py` and the clients of other languages use it."""
    with grpc.insecure_channel(server.target) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def pair(a: Any = A, b: Any = B, datatype: str | None = None) -> list[triton.InferInput]:
    return [as_input("INPUT0", a, datatype), as_input("INPUT1", b, datatype)]


def check(answer: Any) -> None:
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), A + B, strict=True)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), A - B, strict=True)


OUTPUTS = [triton.InferRequestedOutput("OUTPUT0"), triton.InferRequestedOutput("OUTPUT1")]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("outputs", [OUTPUTS, None], ids=["outputs", "all outputs"])
def test_sum_and_difference_are_answered(
    client: Any, outputs: Any, compression: str | None
) -> None:
    answer = client.infer(
        "simple",
        pair(),
        outputs=outputs,
        client_timeout=ANSWER_S,
        headers={"test": "1"},
        compression_algorithm=compression,
    )

    check(answer)
    assert len(client.get_inference_statistics("simple").model_stats) == 1


def test_inputs_and_outputs_may_be_used_again(client: Any) -> None:
    inputs = pair(B, A)
    client.infer("simple", inputs, outputs=OUTPUTS)

    for tensor, values in zip(inputs, (A, B), strict=True):
        tensor.set_data_from_numpy(values)

    check(client.infer("simple", inputs, outputs=OUTPUTS))


@pytest.mark.parametrize(
    "options",
    [
        {
            "keepalive_options": triton.KeepAliveOptions(
                keepalive_time_ms=2**31 - 1,
                keepalive_timeout_ms=20_000,
                keepalive_permit_without_calls=False,
                http2_max_pings_without_data=2,
            )
        },
        {
            "channel_args": [
                ("grpc.max_send_message_length", 2**20),
                ("grpc.max_receive_message_length", 2**20),
                ("grpc.dns_enable_srv_queries", 1),
            ]
        },
    ],
    ids=["keepalive", "channel arguments"],
)
def test_channel_options_are_accepted(server: Server, options: dict[str, Any]) -> None:
    with triton.InferenceServerClient(server.target, **options) as client:
        check(client.infer("simple", pair(), outputs=OUTPUTS, headers={"test": "1"}))


def test_callback_gets_the_answer(client: Any) -> None:
    answers = Answers()

    client.async_infer("simple", pair(), answers, outputs=OUTPUTS, client_timeout=ANSWER_S)

    answer, error = answers.next()
    assert error is None
    check(answer)


def test_asyncio_calls_are_answered(server: Server) -> None:
    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(server.target) as client:
            statistics = await client.get_inference_statistics("simple")
            assert len(statistics.model_stats) == 1
            both = (client.infer("simple", pair(), outputs=OUTPUTS) for _ in range(2))
            return list(await asyncio.gather(*both))

    for answer in asyncio.run(ask()):
        check(answer)


def test_asyncio_stream_is_answered_by_id(server: Server) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"model_name": "simple", "inputs": pair(), "request_id": str(number)}

    async def ask() -> dict[str, Any]:
        async with triton_aio.InferenceServerClient(server.target) as client:
            answers = client.stream_infer(inputs_iterator=requests())
            return {answer.get_response().id: (answer, error) async for answer, error in answers}

    seen = asyncio.run(ask())

    assert sorted(seen) == ["0", "1", "2"]
    for answer, error in seen.values():
        assert error is None
        check(answer)


def test_sequence_on_a_stream_is_refused_and_the_stream_goes_on(client: Any) -> None:
    answers = Answers()

    client.start_stream(answers)
    client.async_stream_infer("simple", pair(), sequence_id=1000, sequence_start=True)
    _, refusal = answers.next()
    client.async_stream_infer("simple", pair())
    answer, error = answers.next()
    client.stop_stream()

    assert "sequences are not offered" in refusal.message()
    assert error is None
    check(answer)


def test_health_and_metadata_are_as_in_triton(client: Any) -> None:
    extra = {"test": "1", "dummy": "2"}

    assert client.is_server_live(headers=extra) and client.is_server_ready()
    assert client.is_model_ready("simple")
    assert client.get_model_metadata("simple", headers=extra).name == "simple"
    assert client.get_model_config("simple").config.max_batch_size == 8
    assert "unknown model" in error_of(lambda: client.get_model_metadata("wrong"))[1]


@pytest.mark.parametrize(
    ("model", "datatype"), [("simple", "INT32"), ("simple_int8", "INT8")], ids=["INT32", "INT8"]
)
def test_typed_numbers_are_answered(stub: Any, model: str, datatype: str) -> None:
    message = service_pb2.ModelInferRequest(model_name=model)
    for number, values in enumerate((A, B)):
        tensor = message.inputs.add(name=f"INPUT{number}", datatype=datatype, shape=[1, 16])
        tensor.contents.int_contents.extend(values[0].tolist())
    for output in OUTPUTS:
        message.outputs.add(name=output.name())

    response = stub.ModelInfer(message)

    dtype = np.dtype(datatype.lower())
    found = [np.frombuffer(raw, dtype).tolist() for raw in response.raw_output_contents]
    assert found == [(A + B)[0].tolist(), (A - B)[0].tolist()]


def test_typed_strings_are_answered(stub: Any) -> None:
    message = service_pb2.ModelInferRequest(model_name="simple_string")
    for number, values in enumerate((A, B)):
        tensor = message.inputs.add(name=f"INPUT{number}", datatype="BYTES", shape=[1, 16])
        tensor.contents.bytes_contents.extend(str(value).encode() for value in values[0])

    response = stub.ModelInfer(message)

    found = [
        [int(text) for text in deserialize_bytes_tensor(raw)]
        for raw in response.raw_output_contents
    ]
    assert found == [(A + B)[0].tolist(), (A - B)[0].tolist()]


def test_strings_are_answered(client: Any) -> None:
    a, b = (np.vectorize(lambda value: str(value).encode(), otypes=[object])(v) for v in (A, B))

    answer = client.infer("simple_string", pair(a, b), outputs=OUTPUTS)

    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0").astype(int), A + B)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1").astype(int), A - B)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[b"he\0llo"] * 16], object),
        np.array([[b"\x00\x01\x02\x03"] * 16], np.bytes_),
    ],
    ids=["NUL inside", "NUL first"],
)
def test_strings_may_hold_nuls(client: Any, values: NDArray[Any]) -> None:
    answer = client.infer("simple_identity", [as_input("x", values, "BYTES")])

    assert answer.as_numpy("y").tolist() == values.tolist()


def picture_of(client: Any, rows: int) -> NDArray[np.uint8]:
    """Red pictures, laid out as an image client does: by the model's metadata and configuration."""
    metadata = client.get_model_metadata("inception")
    config = client.get_model_config("inception").config
    assert len(metadata.inputs) == len(metadata.outputs) == len(config.input) == 1
    assert config.max_batch_size >= rows
    assert metadata.outputs[0].datatype == "FP32"
    assert config.input[0].format == model_config_pb2.ModelInput.FORMAT_NHWC
    height, width, channels = metadata.inputs[0].shape[1:]
    picture = np.zeros((rows, height, width, channels), np.uint8)
    picture[..., 0] = 3
    picture[..., 1] = 1
    return picture


def ask_at_once(client: Any, **request: Any) -> Any:
    return client.infer(**request)


def ask_by_callback(client: Any, **request: Any) -> Any:
    answers = Answers()
    client.async_infer(callback=answers, **request)
    return answers.next()[0]


def ask_on_a_stream(client: Any, **request: Any) -> Any:
    answers = Answers()
    client.start_stream(answers)
    client.async_stream_infer(**request)
    client.stop_stream()
    return answers.next()[0]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("ask", [ask_at_once, ask_by_callback, ask_on_a_stream])
def test_pictures_are_classified_by_each_kind_of_call(
    client: Any, ask: Callable[..., Any], rows: int
) -> None:
    answer = ask(
        client,
        model_name="inception",
        inputs=[as_input("image", picture_of(client, rows))],
        outputs=[triton.InferRequestedOutput("probabilities", class_count=2)],
        request_id="1",
    )

    assert answer.get_response().id == "1"
    best = [b"0.750000:0:red", b"0.250000:1:green"]
    assert answer.as_numpy("probabilities").tolist() == [best] * rows


def test_picture_without_a_batch_axis_is_classified(client: Any) -> None:
    config = client.get_model_config("densenet").config
    picture = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
    best = triton.InferRequestedOutput("y", class_count=2)

    answer = client.infer("densenet", [as_input("x", picture)])
    classes = client.infer("densenet", [as_input("x", picture)], outputs=[best])

    assert config.max_batch_size == 0
    assert config.input[0].format == model_config_pb2.ModelInput.FORMAT_NCHW
    assert list(client.get_model_metadata("densenet").inputs[0].shape) == [3, 4, 4]
    np.testing.assert_array_equal(answer.as_numpy("y"), picture.ravel(), strict=True)
    assert classes.as_numpy("y").tolist() == [b"47.000000:47:class 47", b"46.000000:46:class 46"]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.unregister_system_shared_memory(),
        lambda client: client.register_system_shared_memory("input", "/input", 64),
        lambda client: client.unregister_cuda_shared_memory(),
        lambda client: client.infer("simple", pair(), sequence_id=1000, sequence_start=True),
        lambda client: client.infer("simple", in_shared_memory()),
        lambda client: client.load_model("simple", config='{"max_batch_size": "16"}'),
    ],
    ids=["unregister", "register", "CUDA", "sequence", "shared memory", "configuration"],
)
def test_what_is_not_offered_is_unimplemented(client: Any, call: Callable[[Any], Any]) -> None:
    assert error_of(partial(call, client))[0] == "StatusCode.UNIMPLEMENTED"


def in_shared_memory() -> list[triton.InferInput]:
    inputs = pair()
    inputs[0].set_shared_memory("input", 64)
    return inputs


def test_index_lists_the_models_that_are_ready(stub: Any) -> None:
    index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True))

    assert {(model.name, model.version, model.state, model.reason) for model in index.models} == {
        (name, "1", "READY", "")
        for name in (
            "densenet",
            "inception",
            "simple",
            "simple_identity",
            "simple_int8",
            "simple_string",
        )
    }


def test_index_of_a_named_repository_is_unimplemented(stub: Any) -> None:
    request = service_pb2.RepositoryIndexRequest(repository_name="models")

    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryIndex(request)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
