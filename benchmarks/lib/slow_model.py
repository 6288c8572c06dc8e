"""Slow model whose cost is linear in its rows: some milliseconds a row, all of it matrix products.

A load generator can offer ten times what such a server can do. Each row becomes a matrix of the
size of one input row squared, so a run of several rows costs as much as these rows alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.reader import MODEL
from weir.bundle.writer import write

NAME, INPUT = "slow", "row"
SIZE = 256
"""Numbers of a row."""
PRODUCTS = 40
"""Matrix products of a row; each has 33.6 million floating-point operations."""
_OUTPUT = "sums"
_ROWS = 2

Rows = NDArray[np.float32]


def make_bundle(models: Path) -> None:
    """Write version 1 into a repository."""
    rows = rows_of(_ROWS, seed=0)
    contract = Contract(
        task="other", architecture=NAME, tolerance=Tolerance(absolute=1e-3, relative=1e-3)
    )
    golden = encode(Golden({INPUT: rows}, {_OUTPUT: expected(rows)}))
    files = {MODEL: _graph().SerializeToString(), GOLDEN: golden}
    write(files, contract, models, NAME, 1)


def rows_of(count: int, *, seed: int) -> Rows:
    """Input rows (count, SIZE)."""
    return np.random.default_rng(seed).standard_normal((count, SIZE)).astype(np.float32)


def expected(rows: Rows) -> Rows:
    """The output (B, SIZE) of rows (B, SIZE), by numpy in double precision."""
    weights = _weights().astype(np.float64)
    matrices = rows[:, :, np.newaxis] * weights  # (B, SIZE, SIZE)
    for _ in range(PRODUCTS):
        matrices = matrices @ weights
    sums: Rows = matrices.sum(axis=1).astype(np.float32)
    return sums


def _weights() -> Rows:
    """An orthogonal matrix (SIZE, SIZE): products with it change no norm."""
    random = np.random.default_rng(1).standard_normal((SIZE, SIZE))
    return np.linalg.qr(random)[0].astype(np.float32)


def _graph() -> onnx.ModelProto:
    constants = {"weights": _weights(), "last": np.array([2]), "middle": np.array([1])}
    nodes = [
        helper.make_node("Unsqueeze", [INPUT, "last"], ["column"]),
        helper.make_node("Mul", ["column", "weights"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{each}", "weights"], [f"product{each + 1}"])
            for each in range(PRODUCTS)
        ),
        helper.make_node("ReduceSum", [f"product{PRODUCTS}", "middle"], [_OUTPUT], keepdims=0),
    ]
    shape: Sequence[str | int] = ("batch", SIZE)
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
