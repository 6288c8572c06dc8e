import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers import onnx_models
from weir.bundle.errors import BrokenBundle
from weir.bundle.external_data import ResolvedGraph
from weir.server.errors import ModelLoadError
from weir.server.repository import plain_model, triton
from weir.server.repository.triton import TritonConfig
from weir.server.runtime.session import Session

GRAPH = onnx_models.affine()
LABELLED = 'output [ { name: "y" label_filename: "labels.txt" } ]'


@pytest.fixture
def version(models: Path) -> Path:
    """A version directory, with nothing beside it yet."""
    return onnx_models.write_plain(models, "affine", GRAPH)


def test_graph_alone(version: Path) -> None:
    expected = plain_model.PlainModel(ResolvedGraph(GRAPH), "model.onnx", None, {})
    assert plain_model.read(version) == expected


def test_labels_lie_beside_the_versions(version: Path) -> None:
    (version.parent / "config.pbtxt").write_text(LABELLED)
    (version.parent / "labels.txt").write_bytes("größe\r\neast\n\nwest\n\n\n".encode())

    model = plain_model.read(version)

    assert model.labels == {"y": ["größe", "east", "", "west"]}


def test_graph_has_the_configured_name(version: Path) -> None:
    (version / "model.onnx").rename(version / "other.onnx")
    (version.parent / "config.pbtxt").write_text('default_model_filename: "other.onnx"')

    assert plain_model.read(version).graph.model == GRAPH


@pytest.mark.parametrize("ir_version", [3, 8])
def test_default_outside_the_graph_is_left_out_or_sent(models: Path, ir_version: int) -> None:
    width = 1 << 19
    scale = numpy_helper.from_array(np.full(width, 2, np.float32), "scale")
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", width)) for name in "xy"
    )
    own = helper.make_tensor_value_info("scale", TensorProto.FLOAT, (width,))
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    graph = helper.make_graph([node], "scaled", [x, own], [y], [scale])
    opset = helper.make_opsetid("", 8)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=ir_version)
    directory = models / "scaled" / "1"
    directory.mkdir(parents=True)
    onnx.save(model, directory / "model.onnx", save_as_external_data=True, location="weights")
    (directory.parent / "config.pbtxt").write_text('input { name: "scale" optional: true }')

    read = plain_model.read(directory).graph
    session = Session(read.model, provider="cpu", threads=1, external=read.external)

    ones, sent = np.ones((1, width), np.float32), np.arange(width, dtype=np.float32)
    assert [tensor.name for tensor in read.external] == ["scale"]
    assert set(session.run({"x": ones})["y"].ravel()) == {2}
    np.testing.assert_array_equal(session.run({"x": ones, "scale": sent})["y"][0], sent)


def test_name_is_the_directorys(version: Path) -> None:
    (version.parent / "config.pbtxt").write_text('name: "affine"')
    assert triton.read_config(version.parent) == TritonConfig()

    (version.parent / "config.pbtxt").write_text('name: "other"')
    with pytest.raises(ModelLoadError, match="expected 'affine'"):
        triton.read_config(version.parent)


def test_repository_may_be_a_link(version: Path, tmp_path: Path) -> None:
    (version.parent / "config.pbtxt").write_text("max_batch_size: 3")
    (tmp_path / "link").symlink_to(version.parent.parent)

    config = triton.read_config(tmp_path / "link" / "affine")

    assert config is not None and config.max_batch_size == 3


@pytest.mark.parametrize("file", ["config.pbtxt", "labels.txt"])
def test_unsafe_file_is_refused(file: str, version: Path, tmp_path: Path) -> None:
    (version.parent / "config.pbtxt").write_text(LABELLED)
    (version.parent / "labels.txt").write_text("a\nb\nc\nd\n")
    path, elsewhere = version.parent / file, tmp_path / "elsewhere"
    path.rename(elsewhere)

    path.symlink_to(elsewhere)
    with pytest.raises(BrokenBundle, match=f"{file}: expected a regular file, got a link"):
        plain_model.read(version)

    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BrokenBundle, match=f"{file}: expected a regular file"):
        plain_model.read(version)

    path.unlink()
    with path.open("wb") as huge:
        huge.truncate(1 << 25)
    with pytest.raises(BrokenBundle, match=f"{file}: expected at most"):
        plain_model.read(version)


def test_linked_model_directory_is_refused(version: Path, models: Path) -> None:
    (version.parent / "config.pbtxt").write_text("max_batch_size: 3")
    (models / "linked").symlink_to(version.parent)

    with pytest.raises(BrokenBundle, match="expected a directory, got a link"):
        triton.read_config(models / "linked")


def test_missing_labels_are_named(version: Path) -> None:
    (version.parent / "config.pbtxt").write_text(LABELLED)

    with pytest.raises(ModelLoadError, match=r"labels\.txt: expected the labels .* got none"):
        plain_model.read(version)


def test_labels_of_no_text_are_refused(version: Path) -> None:
    (version.parent / "config.pbtxt").write_text(LABELLED)
    (version.parent / "labels.txt").write_bytes(b"a\n\xff\n")

    with pytest.raises(ModelLoadError, match=r"labels\.txt: expected UTF-8"):
        plain_model.read(version)
