import errno
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from tests.helpers import onnx_models, stored_models
from weir.bundle import external_data
from weir.bundle.external_data import ResolvedGraph
from weir.protocol.datatypes import DATATYPES
from weir.server import threads
from weir.server.errors import (
    InvalidRequest,
    ModelLoadError,
    OutOfMemory,
    ProviderMissing,
    RequestError,
    ServerError,
    Unsupported,
)
from weir.server.runtime.session import RunFailed, RunStop, Session, choose_provider
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]

ONNX_OF = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


def session(graph: bytes) -> Session:
    return Session(graph, provider="cpu", threads=1)


def elements(datatype: str, shape: tuple[int, ...]) -> Array:
    """Random bits of the datatype, or texts; read-only, as they come from a message."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        texts = np.empty(count, object)
        texts[:] = ["", "ä", "line\nbreak", "x" * 1000][:count] + ["t"] * max(0, count - 4)
        return texts.reshape(shape)
    if datatype == "BOOL":
        return np.array([index % 2 == 0 for index in range(count)], np.bool_).reshape(shape)
    dtype = DATATYPES[datatype].dtype
    raw = np.random.default_rng(7).bytes(count * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


def test_every_datatype_has_an_onnx_one() -> None:
    assert ONNX_OF.keys() == DATATYPES.keys()


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1, 3)], ids=["2x3", "no rows", "1x3"])
@pytest.mark.parametrize("datatype", ONNX_OF)
def test_every_datatype_echoes_bit_by_bit(datatype: str, shape: tuple[int, ...]) -> None:
    loaded = session(onnx_models.echo(ONNX_OF[datatype], ("batch", 3)))
    sent = elements(datatype, shape)

    received = loaded.run({"x": sent})["y"]

    assert loaded.inputs == [TensorSpec("x", datatype, ("batch", 3))]
    assert loaded.outputs == [TensorSpec("y", datatype, ("batch", 3))]
    assert received.shape == shape
    if datatype == "BYTES":
        assert received.tolist() == sent.tolist()
    else:
        assert received.dtype == sent.dtype
        assert received.tobytes() == sent.tobytes()


@pytest.mark.parametrize("datatype", ONNX_OF)
def test_scalars_have_no_axes(datatype: str) -> None:
    loaded = session(onnx_models.echo(ONNX_OF[datatype], ()))

    received = loaded.run({"x": elements(datatype, ())})["y"]

    assert loaded.inputs[0].axes == ()
    assert np.shape(received) == ()


@pytest.mark.parametrize("datatype", ["BF16", "FP32", "BYTES"])
def test_arrays_that_are_not_contiguous_are_read_right(datatype: str) -> None:
    loaded = session(onnx_models.echo(ONNX_OF[datatype], ("batch", 3)))
    sent = elements(datatype, (4, 3))[::2]

    assert loaded.run({"x": sent})["y"].tolist() == sent.tolist()


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        pytest.param(("batch", 3), ("batch", 3), id="name and size"),
        pytest.param((None, 3), (None, 3), id="without a name"),
        pytest.param((1, "time"), (1, "time"), id="fixed first"),
        pytest.param((0, 2), (0, 2), id="of no elements"),
        pytest.param(("None", "none", "?", "unk__6"), (None,) * 4, id="names that mean nothing"),
        pytest.param(("s77", "N", "trunk"), ("s77", "N", "trunk"), id="names of a size"),
    ],
)
def test_axes_are_read_off_the_graph(
    axes: tuple[int | str | None, ...], expected: tuple[int | str | None, ...]
) -> None:
    loaded = session(onnx_models.echo(axes=axes))

    assert loaded.inputs[0].axes == expected


def test_outputs_come_by_name() -> None:
    a, b = np.full((2, 3), 3, np.float32), np.full((2, 3), 4, np.float32)

    outputs = session(onnx_models.arithmetic()).run({"b": b, "a": a})

    assert list(outputs) == ["sum", "product"]
    np.testing.assert_array_equal(outputs["sum"], a + b)
    np.testing.assert_array_equal(outputs["product"], a * b)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a graph", id="text"),
        pytest.param(onnx_models.affine()[:-20], id="cut short"),
        pytest.param(onnx_models.affine().replace(b"Mul", b"Mux"), id="unknown operator"),
        pytest.param(bytes(1000), id="zeros"),
    ],
)
def test_wrong_graph_fails_the_model_in_one_line(graph: bytes) -> None:
    with pytest.raises(
        ModelLoadError, match=r"^(ONNX Runtime refuses the graph|tensor|expected an ONNX file)[:,] "
    ) as failed:
        session(graph)

    assert "\n" not in str(failed.value)


def test_graph_is_let_go_once_it_is_loaded() -> None:
    graph = onnx_models.affine()
    held = sys.getrefcount(graph)

    loaded = session(graph)

    assert loaded.outputs and sys.getrefcount(graph) == held


def split_model(slope: float) -> ResolvedGraph:
    files = stored_models.split(stored_models.scale(slope))
    return external_data.resolve(files["model.onnx"], files.__getitem__)


@pytest.mark.parametrize("in_memory", [True, False], ids=["file-in-memory", "bytes"])
def test_weights_beside_the_graph_are_taken_from_memory_alone(
    in_memory: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoy = stored_models.split(stored_models.scale(5.0))[stored_models.DATA]
    (tmp_path / stored_models.DATA).write_bytes(decoy)
    monkeypatch.chdir(tmp_path)
    if not in_memory:
        monkeypatch.setattr(os, "memfd_create", lambda _name: os.open("/nowhere", os.O_RDONLY))
    graph = split_model(2.0)

    loaded = Session(graph.model, provider="cpu", threads=1, external=graph.external)

    x = np.ones((2, stored_models.WIDTH), np.float32)
    assert set(loaded.run({"x": x})["y"].ravel().tolist()) == {2.0}


def test_weights_beside_the_graph_that_are_not_given_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = split_model(2.0)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelLoadError, match="ONNX Runtime refuses the graph"):
        session(graph.model)


def test_weights_beside_the_graph_may_be_freed() -> None:
    graph = split_model(2.0)
    weights = [*graph.external]
    (held,) = {sys.getrefcount(weight.data) for weight in weights}

    loaded = Session(graph.model, provider="cpu", threads=1, external=weights)

    assert {sys.getrefcount(weight.data) for weight in weights} == {held}
    x = np.ones((2, stored_models.WIDTH), np.float32)
    assert set(loaded.run({"x": x})["y"].ravel().tolist()) == {2.0}


def test_graph_is_loaded_where_no_file_in_memory_can_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_name: str) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)

    loaded = session(onnx_models.affine())

    assert loaded.run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[3, 3, 3, 3]]


def test_refusal_of_a_graph_does_not_name_the_file_in_memory() -> None:
    with pytest.raises(ModelLoadError) as failed:
        session(b"not a graph")

    assert "/proc" not in str(failed.value)


def test_type_the_protocol_lacks_fails_the_model() -> None:
    with pytest.raises(ModelLoadError, match=r"input 'x' has type .* which cannot be served"):
        session(onnx_models.echo(TensorProto.FLOAT8E4M3FN))


def test_outputs_that_are_no_tensors_are_left_out() -> None:
    loaded = session(onnx_models.classifier())

    received = loaded.run({"x": np.array([[0, 3], [5, 1]], np.float32)})

    assert {name: value.tolist() for name, value in received.items()} == {"label": [1, 0]}
    assert loaded.unserved == {"probabilities": "seq(map(int64,tensor(float)))"}


@pytest.mark.parametrize("kind", ["sequence", "optional", "sparse"])
def test_graph_with_no_tensor_to_serve_is_refused(kind: str) -> None:
    with pytest.raises(ModelLoadError, match=r"'(x|y)' has type .*, which cannot be served"):
        session(onnx_models.without_tensors(kind))


def test_zipmap_alone_is_refused_with_its_hint() -> None:
    with pytest.raises(ModelLoadError, match=r"'probabilities' has type .*zipmap=False.*import"):
        session(onnx_models.classifier(outputs=("probabilities",)))


def test_inputs_with_an_initializer_may_be_left_out() -> None:
    loaded = session(onnx_models.scaled())
    x = np.ones((2, 3), np.float32)

    left_out, sent = (
        loaded.run({"x": x}),
        loaded.run({"x": x, "scale": np.array([1, 2, 3], np.float32)}),
    )

    assert [spec.name for spec in loaded.inputs] == ["x"]
    assert loaded.defaults == [TensorSpec("scale", "FP32", (3,))]
    assert left_out["y"].tolist() == [[2, 2, 2]] * 2
    assert sent["y"].tolist() == [[1, 2, 3]] * 2


def test_initializers_of_the_oldest_files_are_no_inputs() -> None:
    loaded = session(onnx_models.scaled(ir_version=3))

    assert loaded.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]
    assert ([spec.name for spec in loaded.inputs], loaded.defaults) == (["x"], [])


def test_tensor_without_a_shape_is_no_scalar() -> None:
    loaded = session(onnx_models.without_shapes())
    scalar = session(onnx_models.echo(axes=()))

    assert not loaded.inputs[0].has_shape and not loaded.outputs[0].has_shape
    assert scalar.inputs[0].has_shape and scalar.outputs[0].has_shape
    for shape in [(), (2,), (1, 2, 0)]:
        assert loaded.run({"x": np.zeros(shape, np.float32)})["y"].shape == shape


def test_more_axes_than_a_request_may_have_fail_the_model() -> None:
    loaded = session(onnx_models.echo(axes=("batch", *(1,) * 31)))

    assert loaded.run({"x": np.ones((2,) + (1,) * 31, np.float32)})["y"].ndim == 32
    with pytest.raises(ModelLoadError, match="input 'x': expected at most 32 axes, got 33"):
        session(onnx_models.echo(axes=("batch", *(1,) * 32)))


def test_session_reshapes_between_requests_and_graph() -> None:
    loaded = session(onnx_models.echo(axes=("batch", 6)))

    reshaped = loaded.with_tensors(
        [TensorSpec("x", "FP32", ("batch", 2, 3), reshape=(-1, 6))],
        [TensorSpec("y", "FP32", ("batch", 3, 2), reshape=(-1, 6))],
        (),
    )

    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    np.testing.assert_array_equal(reshaped.run({"x": x})["y"], x.reshape(2, 3, 2))
    np.testing.assert_array_equal(loaded.run({"x": x.reshape(2, 6)})["y"], x.reshape(2, 6))


def test_values_the_graph_refuses_are_the_requests_fault(
    capfd: pytest.CaptureFixture[str],
) -> None:
    loaded = session(onnx_models.gather(8))

    with pytest.raises(InvalidRequest, match=r"^the model cannot compute with these values$"):
        loaded.run({"tokens": np.array([[8]])})

    assert loaded.run({"tokens": np.array([[7]])})["y"].tolist() == [[70]]
    # Else every such request would leave lines of the runtime's own in the server's log.
    assert capfd.readouterr().err == ""


def test_division_by_zero_is_the_requests_fault() -> None:
    loaded = session(onnx_models.quotient())

    with pytest.raises(InvalidRequest, match=r"^the model cannot compute with these inputs$"):
        loaded.run({"a": np.array([[6]]), "b": np.array([[0]])})

    assert loaded.run({"a": np.array([[6]]), "b": np.array([[2]])})["y"].tolist() == [[3]]


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
def test_place_of_the_greatest_of_no_numbers_is_the_requests_fault(operator: str) -> None:
    """ONNX Runtime gives no reason at all."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[n, m] x) => (int64[n, 1] y) {{ y = {operator}<axis = 1> (x) }}"""
    )
    loaded = session(model.SerializeToString())

    assert loaded.run({"x": np.zeros((0, 3), np.float32)})["y"].shape == (0, 1)
    with pytest.raises(InvalidRequest, match="the model cannot compute with these inputs"):
        loaded.run({"x": np.zeros((3, 0), np.float32)})


def test_run_that_does_not_end_can_be_stopped() -> None:
    loaded = session(onnx_models.counting())
    stop = RunStop()
    assert loaded.has_loop
    assert not session(onnx_models.affine()).has_loop

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(loaded.run, {"times": np.array(1 << 62)}, stop)
        stop.set()
        with pytest.raises(RunFailed):
            run.result()

    assert loaded.run({"times": np.array(5)}, RunStop())["y"] == 5
    assert loaded.run({"times": np.array(6)})["y"] == 6


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("shape", [(0, 1, 2), (3, 0, 2), (0, 0, 2)])
def test_empty_input_does_not_end_the_process(cell: str, shape: tuple[int, ...]) -> None:
    """ONNX Runtime aborts the process in LSTM and GRU; RNN computes nothing."""
    loaded = session(onnx_models.recurrent(cell))
    empty = np.zeros(shape, np.float32)

    if cell == "RNN":
        assert loaded.run({"x": empty})["y"].size == 0
    else:
        with pytest.raises(
            InvalidRequest, match=r"^input 'x': expected 1 or more elements .*, got"
        ):
            loaded.run({"x": empty})

    assert loaded.run({"x": np.zeros((3, 1, 2), np.float32)})["y"].shape == (3, 1, 1, 3)


def test_run_that_needs_too_much_memory_is_out_of_memory(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = session(onnx_models.sizer())

    with pytest.raises(OutOfMemory, match=r"^the run needs more memory than there is$"):
        loaded.run({"size": np.array([1 << 45])})

    assert loaded.run({"size": np.array([2])})["y"].tolist() == [0, 0]
    assert capfd.readouterr().err == ""


def failing_node(name: str, error: type[Exception], code: str, message: str) -> Exception:
    """What ONNX Runtime raises for a node; checked against it by the tests with graphs."""
    return error(
        f"[ONNXRuntimeError] : {code} : Non-zero status code returned while running Add node. "
        f"Name:'{name}' Status Message: {message}"
    )


class FakeInference:
    """Stands in for `InferenceSession`: its runs fail as the test says."""

    created: ClassVar[list[dict[str, Any]]] = []
    error: ClassVar[Exception] = ValueError()

    def __init__(self, *_: object, **options: Any) -> None:
        self._options = options
        self.created.append(options)

    def get_inputs(self) -> list[object]:
        return []

    get_outputs = get_overridable_initializers = get_inputs

    def get_providers(self) -> list[str]:
        return list(self._options["providers"])

    def run(self, *_: object) -> None:
        raise self.error


def outcome_of(error: Exception, monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeInference)
    monkeypatch.setattr(FakeInference, "error", error)
    with pytest.raises(ServerError) as failed:
        session(b"").run({})
    return type(failed.value)


@pytest.mark.parametrize("name", ["alloc", "out of memory", "std::bad_alloc", "it's 'quoted'"])
def test_name_of_a_node_is_no_sign_of_its_failure(name: str) -> None:
    loaded = session(onnx_models.unequal_sum(name))

    with pytest.raises(InvalidRequest, match=r"^the model cannot compute with these inputs$"):
        loaded.run({"a": np.ones((1, 3), np.float32), "b": np.ones((1, 4), np.float32)})


@pytest.mark.parametrize(
    ("kind", "code", "message", "expected"),
    [
        pytest.param(Fail, "1 : FAIL", "MatMul dimension mismatch", InvalidRequest, id="MatMul"),
        pytest.param(
            Fail,
            "1 : FAIL",
            "ReshapeHelper(const onnxruntime::TensorShape&) The input tensor cannot be reshaped to "
            "the requested shape. Input shape:{6}, requested shape:{-1,4}",
            InvalidRequest,
            id="Reshape",
        ),
        pytest.param(
            Fail,
            "1 : FAIL",
            "GatherElements op: Out of range value in index tensor",
            InvalidRequest,
            id="GatherElements",
        ),
        pytest.param(
            RuntimeException, "6 : RUNTIME_EXCEPTION", "stod", InvalidRequest, id="Cast of a text"
        ),
        pytest.param(
            Fail,
            "1 : FAIL",
            "element_wise_ops.cc:692 Compute Integer division by zero",
            InvalidRequest,
            id="Div",
        ),
        pytest.param(
            Fail, "1 : FAIL", "value of k must not be negative", InvalidRequest, id="TopK"
        ),
        pytest.param(RuntimeException, "6 : RUNTIME_EXCEPTION", "", InvalidRequest, id="ArgMax"),
        pytest.param(
            RuntimeException,
            "6 : RUNTIME_EXCEPTION",
            "ReduceMax is not defined for empty set with bool type",
            InvalidRequest,
            id="ReduceMax",
        ),
        pytest.param(
            Fail,
            "1 : FAIL",
            "IsScalarOr1ElementVector(W_Zero_Point) was false. Not supported now.",
            InvalidRequest,
            id="a check",
        ),
        pytest.param(
            Fail,
            "1 : FAIL",
            "fmod was false. fmod attribute must be true for floating point types",
            RunFailed,
            id="the graph's own attribute",
        ),
        pytest.param(Fail, "1 : FAIL", "Missing Input: weight", RunFailed, id="unknown, of a node"),
        pytest.param(
            RuntimeException,
            "6 : RUNTIME_EXCEPTION",
            "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=shape ;",
            RunFailed,
            id="device",
        ),
        pytest.param(
            RuntimeException,
            "6 : RUNTIME_EXCEPTION",
            "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; dimension ;",
            RunFailed,
            id="cuDNN",
        ),
        pytest.param(
            RuntimeException, "6 : RUNTIME_EXCEPTION", "std::bad_alloc", OutOfMemory, id="bad_alloc"
        ),
        pytest.param(
            Fail,
            "1 : FAIL",
            "Failed to allocate memory for requested buffer of size 70368744177664",
            OutOfMemory,
            id="arena",
        ),
        pytest.param(
            RuntimeException,
            "6 : RUNTIME_EXCEPTION",
            "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
            OutOfMemory,
            id="GPU memory",
        ),
        pytest.param(
            Fail,
            "1 : FAIL",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ;",
            OutOfMemory,
            id="cuBLAS memory",
        ),
        pytest.param(
            Fail, "1 : FAIL", "The allocator of the pool is closed", RunFailed, id="an allocator"
        ),
    ],
)
def test_failure_of_a_node_is_the_clients_where_its_input_is_the_cause(
    kind: type[Exception],
    code: str,
    message: str,
    expected: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = failing_node("alloc", kind, code, message)

    assert outcome_of(error, monkeypatch) is expected


LOST = (
    "CUDA failure {code}: {what} ; GPU=0 ; hostname=host ; file=cuda_call.cc ; line=1 ; expr=sync;"
)


@pytest.mark.parametrize("row", ["F07"])
@pytest.mark.parametrize(
    ("provider", "code", "what", "is_lost"),
    [
        ("cuda", 700, "an illegal memory access was encountered", True),
        ("cuda", 719, "unspecified launch failure", True),
        ("cuda", 2, "out of memory", False),
        ("cuda", 98, "invalid device function", False),
        ("cpu", 700, "an illegal memory access was encountered", False),
    ],
)
def test_lost_device_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, provider: str, code: int, *, what: str, is_lost: bool, row: str
) -> None:
    ended: list[int] = []

    def end(exit_code: int, record: logging.LogRecord) -> None:
        assert record.exc_info is not None and "device lost" in record.getMessage()
        ended.append(exit_code)

    monkeypatch.setattr(threads, "end_process", end)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeInference)
    error = failing_node(
        "n", RuntimeException, "6 : RUNTIME_EXCEPTION", LOST.format(code=code, what=what)
    )
    monkeypatch.setattr(FakeInference, "error", error)
    loaded = session(b"")
    loaded.provider = provider

    with pytest.raises(ServerError):
        loaded.run({})

    assert ended == ([threads.DEVICE_LOST] if is_lost else [])


def test_bound_run_fails_as_a_run_does() -> None:
    loaded = session(onnx_models.needing(1 << 60))

    with pytest.raises(OutOfMemory):
        loaded.run_bound({"x": np.zeros((1, 4), np.float32)}, [])


@pytest.mark.parametrize(
    ("datatype", "expected"), [("FP32", True), ("FP16", True), ("BF16", False), ("BYTES", False)]
)
def test_only_numbers_of_numpy_can_be_bound(datatype: str, *, expected: bool) -> None:
    assert session(onnx_models.echo(ONNX_OF[datatype])).can_bind is expected


def test_tensor_with_a_reshape_cannot_be_bound() -> None:
    loaded = session(onnx_models.affine())
    (x,) = loaded.inputs

    reshaped = loaded.with_tensors([replace(x, reshape=(4,))], loaded.outputs, [])

    assert loaded.can_bind and not reshaped.can_bind


def test_answer_that_is_no_utf_8_is_not_offered() -> None:
    session = Session(onnx_models.ending_in(b"\xff"), provider="cpu", threads=1)

    with pytest.raises(Unsupported, match="holds a string that is no valid UTF-8"):
        session.run({"x": np.array([["a", "b", "c", "d"]], object)})


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(InvalidArgument("Unexpected input data type"), id="a type the server let in"),
        pytest.param(InvalidArgument("Got invalid dimensions for input: x"), id="a shape"),
        pytest.param(Fail("the thread pool has no shape"), id="no node"),
        pytest.param(KeyError("shape"), id="Python"),
    ],
)
def test_failure_outside_the_nodes_is_the_servers(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome_of(error, monkeypatch) is RunFailed


@pytest.mark.parametrize(
    ("provider", "expected"),
    [("cpu", {}), ("cuda", {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"})],
)
def test_session_is_created_with_the_options_of_its_provider(
    provider: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeInference)
    created: list[dict[str, Any]] = []
    monkeypatch.setattr(FakeInference, "created", created)

    loaded = Session(b"", provider=provider, threads=1)

    assert loaded.provider == provider
    assert [each["provider_options"] for each in created] == [[expected]]


def test_run_of_our_own_making_is_no_request_error() -> None:
    """Its text may tell of the machine, so it must not reach a caller."""
    with pytest.raises(RunFailed) as failed:
        session(onnx_models.affine()).run({})

    assert not isinstance(failed.value, RequestError)


def test_a_session_runs_in_several_threads() -> None:
    loaded = session(onnx_models.fingerprint(3))
    rows = [np.arange(start, start + 12).reshape(3, 4) for start in range(40)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda row: loaded.run({"row": row}), rows))

    for row, result in zip(rows, results, strict=True):
        np.testing.assert_array_equal(result["echo"], row)
        np.testing.assert_array_equal(result["hash"], onnx_models.hash_of(row))
        assert result["version"].tolist() == [3, 3, 3]


def test_burner_runs_as_many_steps_as_its_input_says() -> None:
    """About a second for 130,000 steps; here, that steps are counted and inputs kept apart."""
    loaded = session(onnx_models.burner())

    outputs = loaded.run({"iterations": np.array([[2000], [5]])})

    assert outputs["echo"].tolist() == [[2000], [5]]
    assert outputs["steps"].tolist() == [[2000], [2000]]


def test_nan_stays_in_its_row() -> None:
    sent = np.ones((3, 4), np.float32)
    sent[1, 2] = np.nan

    received = session(onnx_models.nan_passthrough()).run({"x": sent})["y"]

    np.testing.assert_array_equal(received, np.array([4, np.nan, 4], np.float32))


def test_session_has_its_provider() -> None:
    assert session(onnx_models.affine()).provider == "cpu"


def test_cpu_is_taken_where_it_is_wanted() -> None:
    assert choose_provider("cpu") == "cpu"


def has_cuda() -> bool:
    return choose_provider("auto") == "cuda"


without_cuda = pytest.mark.skipif(has_cuda(), reason="this machine has CUDA")
with_cuda = pytest.mark.skipif(not has_cuda(), reason="this machine has no CUDA")


@without_cuda
def test_auto_falls_back_to_the_cpu() -> None:
    assert choose_provider("auto") == "cpu"


@without_cuda
def test_cuda_where_there_is_none_is_a_clear_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProviderMissing, match=r"^provider cuda: .*(CUDA|device)"):
        choose_provider("cuda")

    assert capfd.readouterr().err == ""


@without_cuda
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this build of ONNX Runtime has no CUDA",
)
def test_session_never_falls_back_silently() -> None:
    with pytest.raises(ModelLoadError):
        Session(onnx_models.affine(), provider="cuda", threads=1)


@with_cuda
@pytest.mark.parametrize("datatype", ["FP32", "FP16", "INT64", "BOOL", "BF16"])
def test_cuda_echoes(datatype: str) -> None:
    loaded = Session(onnx_models.echo(ONNX_OF[datatype], ("batch", 3)), provider="cuda", threads=1)
    sent = elements(datatype, (2, 3))

    assert loaded.run({"x": sent})["y"].tobytes() == sent.tobytes()


def test_importing_the_session_prints_nothing() -> None:
    command = [
        sys.executable,
        "-c",
        "import weir.server.runtime.session as s; s.choose_provider('auto')",
    ]

    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert (done.stdout, done.stderr) == ("", "")
