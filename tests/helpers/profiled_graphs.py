"""ONNX graphs with one kind of avoidable time each, and one without any, for the profile's tests.

Their input is `x` and their output `y`; the first axis is called `batch`.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray


def graph(text: str, constants: Mapping[str, NDArray[np.float32]] | None = None) -> bytes:
    """The file of a graph in onnx's text form, with constants."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}')
    for name, array in (constants or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _constant(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)


def channels_last(channels: int = 1, size: int = 64) -> bytes:
    """Pictures that are normalised with the channels last, and then transposed."""
    return graph(
        f"""g (uint8[batch, {size}, {size}, {channels}] x)
            => (float[batch, {channels}, {size}, {size}] y) {{
            real = Cast<to = 1>(x)
            less = Sub(real, mean)
            normal = Div(less, std)
            y = Transpose<perm = [0, 3, 1, 2]>(normal)
        }}""",
        {"mean": _constant(channels), "std": _constant(channels)},
    )


def channels_first(channels: int = 1, size: int = 64) -> bytes:
    """The same numbers, transposed first."""
    constants = {name: _constant(channels).reshape(-1, 1, 1) for name in ("mean", "std")}
    return graph(
        f"""g (uint8[batch, {size}, {size}, {channels}] x)
            => (float[batch, {channels}, {size}, {size}] y) {{
            first = Transpose<perm = [0, 3, 1, 2]>(x)
            real = Cast<to = 1>(first)
            less = Sub(real, mean)
            y = Div(less, std)
        }}""",
        constants,
    )


def transposes(permutation: str = "1, 2, 0", result: str = "batch, 32, 12") -> bytes:
    """Two transposes; a reshape of whole axes and a function of each element lie between."""
    return graph(
        f"""g (float[batch, 12, 2, 16] x) => (float[{result}] y) {{
            shape = Constant<value_ints = [12, -1, 32]>()
            first = Transpose<perm = [1, 0, 2, 3]>(x)
            joined = Reshape(first, shape)
            active = Tanh(joined)
            y = Transpose<perm = [{permutation}]>(active)
        }}"""
    )


def casts() -> bytes:
    """A part in FP64 inside a graph in FP32."""
    return graph(
        """g (float[batch, 64] x) => (float[batch, 64] y) {
            a = Tanh(x)
            wide = Cast<to = 11>(a)
            b = Tanh(wide)
            narrow = Cast<to = 1>(b)
            y = Tanh(narrow)
        }"""
    )


def matmul_and_add() -> bytes:
    """A linear layer of sequences."""
    return graph(
        """g (float[batch, 9, 64] x) => (float[batch, 9, 64] y) {
            product = MatMul(x, w)
            y = Add(product, b)
        }""",
        {"w": _constant(64, 64), "b": _constant(64)},
    )


def projections() -> bytes:
    """Three products of one tensor."""
    return graph(
        """g (float[batch, 32] x) => (float[batch, 32] y) {
            query = MatMul(x, wq)
            key = MatMul(x, wk)
            value = MatMul(x, wv)
            score = Mul(query, key)
            y = Mul(score, value)
        }""",
        {"wq": _constant(32, 32), "wk": _constant(32, 32), "wv": _constant(32, 32)},
    )


def embedding() -> bytes:
    """A product of an embedding."""
    return graph(
        """g (int64[batch] x) => (float[batch, 48] y) {
            token = Gather(table, x)
            y = Gemm(token, w, b)
        }""",
        {"table": _constant(50, 32), "w": _constant(32, 48), "b": _constant(48)},
    )


def added_embedding() -> bytes:
    """An embedding that is added to a product, without anything avoidable."""
    return graph(
        """g (int64[batch] x) => (float[batch, 48] y) {
            axis = Constant<value_ints = [1]>()
            number = Cast<to = 1>(x)
            column = Unsqueeze(number, axis)
            context = Mul(column, row)
            token = Gather(table, x)
            y = Gemm(context, w, token)
        }""",
        {"row": _constant(32), "table": _constant(50, 48), "w": _constant(32, 48)},
    )


def endless() -> bytes:
    """A loop that never ends."""
    return graph(
        """g (float[batch, 4] x) => (float[batch, 4] y) {
            go = Constant<value = bool {1}>()
            y = Loop<body = b (int64 i, bool c, float[batch, 4] a) => (bool d, float[batch, 4] e) {
                d = Identity(c)
                e = Sin(a)
            }>("", go, x)
        }"""
    )


def clean() -> bytes:
    """A network of two linear layers, without anything avoidable."""
    return graph(
        """g (float[batch, 32] x) => (float[batch, 8] y) {
            hidden = Gemm(x, w, b)
            active = Relu(hidden)
            y = Gemm(active, v, c)
        }""",
        {
            "w": _constant(32, 64),
            "b": _constant(64),
            "v": _constant(64, 8),
            "c": _constant(8),
        },
    )
