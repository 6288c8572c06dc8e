import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from server.cache import GraphCache, key
from server.datatypes import DATATYPES
from server.errors import InvalidRequest, ModelFailed, OutOfMemory, ProviderMissing, RequestError
from server.session import PROVIDERS, RunFailed, Session, choose_provider, open_session, version
from server.signature import TensorSpec
from tests import onnx_models

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
    with pytest.raises(ModelFailed, match=r"^(ONNX Runtime refuses the graph|tensor): ") as failed:
        session(graph)

    assert "\n" not in str(failed.value)


def test_type_the_protocol_lacks_fails_the_model() -> None:
    with pytest.raises(ModelFailed, match=r"tensor 'x' has type .* which cannot be served"):
        session(onnx_models.echo(TensorProto.FLOAT8E4M3FN))


def test_values_the_graph_refuses_are_the_requests_fault(
    capfd: pytest.CaptureFixture[str],
) -> None:
    loaded = session(onnx_models.gather(8))

    with pytest.raises(InvalidRequest, match=r"^the model cannot compute with these values$"):
        loaded.run({"tokens": np.array([[8]])})

    assert loaded.run({"tokens": np.array([[7]])})["y"].tolist() == [[70]]
    # Else every such request would leave lines of the runtime's own in the server's log.
    assert capfd.readouterr().err == ""


def test_run_that_needs_too_much_memory_is_told_apart(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = session(onnx_models.sizer())

    with pytest.raises(OutOfMemory, match=r"^the run needs more memory than there is$"):
        loaded.run({"size": np.array([1 << 45])})

    assert loaded.run({"size": np.array([2])})["y"].tolist() == [0, 0]
    assert capfd.readouterr().err == ""


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


def test_burner_runs_as_long_as_it_is_told() -> None:
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


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[bytes], Session]:
    """Open a graph through one cache."""
    return lambda graph: open_session(
        graph, provider="cpu", threads=1, cache_dir=tmp_path / "cache"
    )


def entry_of(graph: bytes) -> str:
    """What a session for the CPU keeps a graph under."""
    return key(hashlib.sha256(graph).hexdigest(), version(), PROVIDERS["cpu"])


def kept_in(directory: Path) -> list[Path]:
    return sorted(directory.rglob("graph.onnx"))


def answer(opened: Session) -> list[list[float]]:
    rows: list[list[float]] = opened.run({"x": np.ones((2, 4), np.float32)})["y"].tolist()
    return rows


def test_without_a_cache_nothing_is_written(tmp_path: Path) -> None:
    opened = open_session(onnx_models.affine(), provider="cpu", threads=1, cache_dir=None)

    assert answer(opened) == [[3.0] * 4] * 2
    assert list(tmp_path.iterdir()) == []


def test_second_start_takes_the_kept_graph(
    opened: Callable[[bytes], Session], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(onnx_models.affine())
    (kept,) = kept_in(tmp_path)
    written_at = kept.stat().st_mtime_ns

    again = opened(onnx_models.affine())

    assert answer(again) == [[3.0] * 4] * 2
    assert again.inputs == session(onnx_models.affine()).inputs
    assert [path.stat().st_mtime_ns for path in kept_in(tmp_path)] == [written_at]
    assert caplog.records == []


def test_it_is_the_kept_graph_that_runs(opened: Callable[[bytes], Session], tmp_path: Path) -> None:
    """Another graph in its place, with a hash that fits: what answers came from the cache."""
    graph = onnx_models.affine()
    with GraphCache(tmp_path / "cache").writing(entry_of(graph)) as place:
        assert place is not None
        place.write_bytes(onnx_models.echo(axes=("batch", 4)))

    assert answer(opened(graph)) == [[1.0] * 4] * 2


def test_another_graph_is_another_entry(opened: Callable[[bytes], Session], tmp_path: Path) -> None:
    opened(onnx_models.affine())
    opened(onnx_models.arithmetic())

    assert len(kept_in(tmp_path)) == 2


def test_damaged_cache_costs_a_warning_and_is_mended(
    opened: Callable[[bytes], Session], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(onnx_models.affine())
    (kept,) = kept_in(tmp_path)
    kept.write_bytes(kept.read_bytes()[:-1])

    assert answer(opened(onnx_models.affine())) == [[3.0] * 4] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]

    caplog.clear()
    assert answer(opened(onnx_models.affine())) == [[3.0] * 4] * 2
    assert caplog.records == []


def test_kept_graph_the_runtime_refuses_is_replaced(
    opened: Callable[[bytes], Session], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = onnx_models.affine()
    with GraphCache(tmp_path / "cache").writing(entry_of(graph)) as place:
        assert place is not None
        place.write_bytes(graph.replace(b"Mul", b"Mux"))

    assert answer(opened(graph)) == [[3.0] * 4] * 2
    assert "cached graph is refused" in caplog.text

    caplog.clear()
    opened(graph)
    assert caplog.records == []


def test_cache_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    opened = open_session(
        onnx_models.affine(), provider="cpu", threads=1, cache_dir=tmp_path / "file"
    )

    assert answer(opened) == [[3.0] * 4] * 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_graph_that_cannot_be_saved_is_served(
    opened: Callable[[bytes], Session],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def full(_cache: GraphCache, _entry: str) -> Iterator[Path]:
        # The runtime cannot write a file where a directory is, as it cannot on a full disk.
        yield tmp_path

    monkeypatch.setattr(GraphCache, "writing", full)

    assert answer(opened(onnx_models.affine())) == [[3.0] * 4] * 2
    assert "cached graph is not kept" in caplog.text


def test_wrong_graph_fails_with_a_cache_as_without(
    opened: Callable[[bytes], Session], tmp_path: Path
) -> None:
    with pytest.raises(ModelFailed, match="ONNX Runtime refuses the graph"):
        opened(b"not a graph")

    assert list((tmp_path / "cache").iterdir()) == []


def test_session_tells_its_provider() -> None:
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
    with pytest.raises(ModelFailed):
        Session(onnx_models.affine(), provider="cuda", threads=1)


@with_cuda
@pytest.mark.parametrize("datatype", ["FP32", "FP16", "INT64", "BOOL", "BF16"])
def test_cuda_echoes(datatype: str) -> None:
    loaded = Session(onnx_models.echo(ONNX_OF[datatype], ("batch", 3)), provider="cuda", threads=1)
    sent = elements(datatype, (2, 3))

    assert loaded.run({"x": sent})["y"].tobytes() == sent.tobytes()


def test_importing_the_session_prints_nothing() -> None:
    command = [sys.executable, "-c", "import server.session as s; s.choose_provider('auto')"]

    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert (done.stdout, done.stderr) == ("", "")
