"""A small bundle, whole and on disk, for tests to read or to break."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import Golden, encode
from weir.bundle.writer import write


@pytest.fixture
def onnx_model() -> onnx.ModelProto:
    """`logits = image * weight`, with the weight inside."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2], [2.0, 3.0])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "weight"], ["logits"])],
        "scale",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [weight],
    )
    return helper.make_model(graph)


@pytest.fixture
def golden() -> Golden:
    return Golden(
        inputs={"image": np.ones((1, 2), np.float32)},
        outputs={"logits": np.array([[2, 3]], np.float32)},
    )


@pytest.fixture
def files(onnx_model: onnx.ModelProto, golden: Golden) -> dict[str, bytes]:
    return {
        "model.onnx": onnx_model.SerializeToString(),
        "golden.npz": encode(golden),
        "labels.txt": b"zero\none\n",
    }


@pytest.fixture
def contract() -> Contract:
    return Contract(
        task="other",
        architecture="scale",
        labels={"logits": "labels.txt"},
        tolerance=Tolerance(absolute=1e-5, relative=1e-5),
    )


@pytest.fixture
def publish(tmp_path: Path, files: dict[str, bytes], contract: Contract) -> Callable[..., Path]:
    """Write the small bundle, with some files or contract fields replaced."""

    def publish(changed: dict[str, bytes] | None = None, **fields: object) -> Path:
        wanted = contract.model_copy(update=fields)
        return write({**files, **(changed or {})}, wanted, tmp_path / "models", "scale")

    return publish


@pytest.fixture
def directory(publish: Callable[..., Path]) -> Path:
    """A published version directory."""
    return publish()
