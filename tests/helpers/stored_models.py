"""Models as they are stored elsewhere: weights beside the graph, ConfigMaps, the hub's cache."""

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 64
DATA = "model.onnx.data"


def scale(slope: float) -> onnx.ModelProto:
    """y = slope * x with a weight of 16 KiB, a shape and a branch, all of them as weights."""
    weight = np.diag(np.full(WIDTH, slope, np.float32))
    floats = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [helper.make_node("Add", ["scaled", f"zeros_{name}"], [f"sum_{name}"])],
            name,
            [],
            [floats(f"sum_{name}", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.zeros((1, WIDTH), np.float32), f"zeros_{name}")],
        )
        for name in ("then", "else")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "rows"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["scaled"]),
            helper.make_node(
                "If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1]
            ),
        ],
        "scale",
        [floats("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [floats("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([-1, WIDTH]), "rows"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def split(model: onnx.ModelProto) -> dict[str, bytes]:
    """The files of a model whose weights are beside it, down to the smallest."""
    data = bytearray()
    graphs = [model.graph, *(a.g for node in model.graph.node for a in node.attribute if a.g.name)]
    for tensor in (tensor for graph in graphs for tensor in graph.initializer):
        raw = numpy_helper.to_array(tensor).tobytes()
        del tensor.external_data[:]
        for key, value in (("location", DATA), ("offset", len(data)), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        data += raw
    return {"model.onnx": model.SerializeToString(), DATA: bytes(data)}


def write_split(root: Path, name: str, slope: float = 2.0, version: int = 1) -> Path:
    """A plain model with weights beside the graph; its version directory."""
    directory = root / name / str(version)
    directory.mkdir(parents=True)
    for file, data in split(scale(slope)).items():
        (directory / file).write_bytes(data)
    return directory


class ConfigMap:
    """A mounted ConfigMap, as the kubelet makes and replaces it.

    Each file is a link below the link `..data`, which leads to the directory of the contents.
    """

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        self._number = 0

    def put(self, files: dict[str, bytes]) -> None:
        """Replace the contents: one rename of `..data`."""
        self._mount.mkdir(parents=True, exist_ok=True)
        data = self._mount / "..data"
        before = data.readlink() if data.is_symlink() else None
        self._number += 1
        contents = self._mount / f"..2026_11_27_10_00_00.{self._number}"
        contents.mkdir()
        for name, content in files.items():
            (contents / name).parent.mkdir(parents=True, exist_ok=True)
            (contents / name).write_bytes(content)
        (self._mount / "..data_tmp").symlink_to(contents.name)
        (self._mount / "..data_tmp").rename(data)
        for name in {Path(name).parts[0] for name in files}:
            if not (self._mount / name).is_symlink():
                (self._mount / name).symlink_to(Path("..data") / name)
        if before is not None:
            for directory, _, names in os.walk(self._mount / before, topdown=False):
                for name in names:
                    (Path(directory) / name).unlink()
                Path(directory).rmdir()


def write_snapshot(cache: Path, files: dict[str, bytes]) -> Path:
    """A repository in the cache of Hugging Face's hub; its snapshot's directory."""
    snapshot = cache / "models--someone--net" / "snapshots" / "0123abcd"
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(parents=True)
    for number, (name, content) in enumerate(files.items()):
        blob = blobs / f"{number:064x}"
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot
