import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.unit.export.onnx_import import graphs
from weir.bundle.errors import BrokenBundle
from weir.export import runtime
from weir.export.errors import BrokenGraph
from weir.export.onnx_import import source

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def write_external(folder: Path, location: str = "net.onnx.data", **entries: str) -> Path:
    """A file whose one weight lies outside, at byte 4 of its data."""
    model = graphs.model("g (float[N, 3] x) => (float[N, 4] y) { y = MatMul(x, w) }")
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "4", "length": "48", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    (folder / "net.onnx.data").write_bytes(b"\0\0\0\0" + WEIGHTS.tobytes())
    return path


def test_external_data_are_read_into_the_model(tmp_path: Path) -> None:
    file = write_external(tmp_path)

    read = source.read(file)

    (tensor,) = read.model.graph.initializer
    assert not tensor.external_data
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), WEIGHTS)
    data = (tmp_path / "net.onnx.data").read_bytes()
    assert read.files == {
        "net.onnx": hashlib.sha256(file.read_bytes()).hexdigest(),
        "net.onnx.data": hashlib.sha256(data).hexdigest(),
    }


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "C:\\secret", "", "a/../b"])
def test_external_data_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(BrokenBundle, match="expected external data in the folder of the graph"):
        source.read(write_external(tmp_path, location))


def test_external_data_linked_from_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "elsewhere").mkdir()
    file = write_external(tmp_path / "net")
    data = tmp_path / "net" / "net.onnx.data"
    data.rename(tmp_path / "elsewhere" / "data")
    data.symlink_to(tmp_path / "elsewhere" / "data")

    with pytest.raises(BrokenBundle, match="got another place or a link"):
        source.read(file)


def test_graph_and_external_data_are_links_of_a_cache(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs").mkdir()
    file = write_external(tmp_path / "snapshot")
    expected = source.read(file)
    for number, name in enumerate(("net.onnx", "net.onnx.data")):
        (tmp_path / "snapshot" / name).rename(tmp_path / "blobs" / f"{number}")
        (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{number}")

    assert source.read(file) == expected


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"length": "80"}, r"net\.onnx\.data: expected 84 bytes for tensor 'w', got 52"),
        ({"offset": "x"}, "tensor 'w': offset: expected a number, got 'x'"),
    ],
)
def test_damaged_external_data_are_refused(
    tmp_path: Path, entries: dict[str, str], message: str
) -> None:
    with pytest.raises(BrokenBundle, match=message):
        source.read(write_external(tmp_path, **entries))


def test_missing_external_data_are_named(tmp_path: Path) -> None:
    file = write_external(tmp_path)
    (tmp_path / "net.onnx.data").unlink()

    with pytest.raises(BrokenBundle, match=r"net\.onnx\.data: expected a regular file"):
        source.read(file)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07"], ids=["empty", "text", "no-graph"])
def test_other_bytes_are_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(content)

    with pytest.raises(BrokenGraph, match="expected an ONNX file"):
        source.read(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.pt", b"PK", r"got a PyTorch file \(\.pt\): export the model to ONNX first"),
        ("net.keras", b"", r"got a Keras file \(\.keras\): export the model to ONNX first"),
        ("net.PB", b"\x08\x07", r"got a TensorFlow file \(\.PB\): export the model to ONNX first"),
        ("net.onnx", b"", "got an empty file"),
    ],
    ids=["torch", "keras", "tensorflow", "empty"],
)
def test_file_of_another_format_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BrokenGraph, match=f"^expected an ONNX file, {message}$"):
        source.read(tmp_path / name)


def test_checker_names_what_is_invalid(tmp_path: Path) -> None:
    model = graphs.model(graphs.SCALE)
    model.graph.node[0].input[1] = "nothing"
    file = tmp_path / "net.onnx"
    file.write_bytes(model.SerializeToString())

    with pytest.raises(BrokenGraph, match=r"the graph is not valid ONNX: .*nothing"):
        source.read(file)


def test_operator_that_onnx_runtime_lacks_is_named(tmp_path: Path) -> None:
    header = graphs.HEADER.replace("]", ', "custom" : 1]')
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = custom.Magic(x) }"

    with pytest.raises(BrokenGraph, match=r"ONNX Runtime refuses the graph: .*Magic"):
        source.read(graphs.write(tmp_path, text, header=header))


def test_newer_format_is_named_without_the_runtimes_source(tmp_path: Path) -> None:
    model = graphs.model(graphs.SCALE)
    model.ir_version = 99
    file = tmp_path / "net.onnx"
    file.write_bytes(model.SerializeToString())

    with pytest.raises(BrokenGraph, match=r"(?i)IR[_ ]version") as raised:
        source.read(file)
    assert "onnxruntime_src" not in str(raised.value)


def test_reason_of_a_run_is_what_the_node_says() -> None:
    long = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running ReduceSum "
        "node. Name:'' Status Message: /onnxruntime_src/onnxruntime/core/providers/common.h:31 "
        "int64_t onnxruntime::HandleNegativeAxis(int64_t, int64_t) "
        "IsAxisInRange(axis, tensor_rank) was false. axis 3 is not in valid range [-3,2]\n"
    )

    assert runtime.reason(RuntimeError(long)) == (
        "Non-zero status code returned while running ReduceSum node. Name:'' Status Message: "
        "axis 3 is not in valid range [-3,2]"
    )
