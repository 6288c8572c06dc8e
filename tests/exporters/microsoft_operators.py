"""Models of one operator of com.microsoft each: what ONNX Runtime's optimiser and quantiser write.

The onnx package has no tests of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from tests.exporters.node_tests import NodeTest

Array = NDArray[Any]

_CHANCE = np.random.default_rng(0)
_SCALE = np.array(0.1, np.float32)
_ZERO = np.array(3, np.uint8)


def _floats(*shape: int) -> Array:
    return _CHANCE.normal(size=shape).astype(np.float32)


def _bytes(*shape: int) -> Array:
    return _CHANCE.integers(0, 255, size=shape).astype(np.uint8)


def _signed(*shape: int) -> Array:
    return _CHANCE.integers(-127, 127, size=shape).astype(np.int8)


def _ids(*shape: int, below: int) -> Array:
    return _CHANCE.integers(0, below, size=shape).astype(np.int32)


def _model(
    operator: str, inputs: Sequence[Array | None], *, outputs: int = 1, **attributes: Any
) -> NodeTest:
    names = [f"i{place}" if array is not None else "" for place, array in enumerate(inputs)]
    given = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    made = [f"o{place}" for place in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, made, domain="com.microsoft", **attributes)],
        operator,
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in given.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in made],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = "_".join(sorted(attributes))
    return NodeTest(f"microsoft_{operator}_{options}", model.SerializeToString(), given)


def models() -> list[NodeTest]:
    """Two rows of four steps of eight numbers, where an operator takes rows and steps."""
    x, rows, picture = _floats(2, 4, 8), _bytes(2, 8), _bytes(1, 3, 4, 4)
    scale, zero = _SCALE, _ZERO
    quantized = [rows, scale, zero]
    two_to_one = [*quantized, *quantized, scale, zero]
    weights, bias = _floats(8, 24), _floats(24)
    norm = [_floats(8), _floats(8)]
    return [
        _model("BiasGelu", [x, _floats(8)]),
        _model("CDist", [_floats(4, 3), _floats(5, 3)], metric="euclidean"),
        _model("DynamicQuantizeMatMul", [x, _signed(8, 6), _floats(1)]),
        _model("FastGelu", [x, _floats(8)]),
        _model("FusedMatMul", [x, _floats(2, 8, 4)], alpha=2.0),
        _model("FusedMatMul", [x, _floats(2, 4, 6)], transA=1),
        _model("Gelu", [x]),
        _model("Inverse", [_floats(3, 3)]),
        _model("MatMulIntegerToFloat", [_bytes(2, 4, 8), _signed(8, 6), scale, scale]),
        _model(
            "MatMulNBits",
            [_floats(2, 32), _bytes(6, 1, 16), _floats(6)],
            K=32,
            N=6,
            bits=4,
            block_size=32,
        ),
        _model("NhwcMaxPool", [_bytes(1, 4, 4, 2)], kernel_shape=[2, 2]),
        _model("QGemm", [*quantized, _bytes(8, 6), scale, zero, _ids(6, below=9), scale, zero]),
        _model("QLinearAdd", two_to_one),
        _model("QLinearAveragePool", [picture, scale, zero, scale, zero], kernel_shape=[2, 2]),
        _model("QLinearConcat", [scale, zero, rows, scale, zero, rows, scale, zero], axis=1),
        _model("QLinearGlobalAveragePool", [picture, scale, zero, scale, zero]),
        _model("QLinearLeakyRelu", [*quantized, scale, zero], alpha=0.1),
        _model("QLinearMul", two_to_one),
        _model("QLinearSigmoid", [*quantized, scale, zero]),
        _model("QLinearSoftmax", [*quantized, scale, zero], opset=13, axis=-1),
        _model("QLinearWhere", [rows > 99, *two_to_one]),
        _model("QuickGelu", [x], alpha=1.7),
        _model("SkipLayerNormalization", [x, _floats(2, 4, 8), *norm]),
        _model("SkipSimplifiedLayerNormalization", [x, _floats(2, 4, 8), _floats(8)]),
        _model("Attention", [x, weights, bias, _ids(2, below=4)], num_heads=2),
        _model(
            "Attention",
            [x, weights, bias, np.ones((2, 4), np.int32)],
            num_heads=2,
            unidirectional=1,
        ),
        _model(
            "Attention",
            [x, weights, bias, None, _floats(2, 2, 2, 3, 4)],
            outputs=2,
            num_heads=2,
            scale=1.0,
        ),
        _model("MultiHeadAttention", [x, _floats(2, 4, 8), _floats(2, 4, 8)], num_heads=2),
        _model(
            "QAttention",
            [
                _bytes(2, 4, 8),
                _signed(8, 24),
                bias,
                scale,
                scale,
                np.ones(2, np.int32),
                zero,
                np.array(0, np.int8),
            ],
            num_heads=2,
        ),
        _model(
            "RotaryEmbedding",
            [x, np.tile(np.arange(4), (2, 1)), _floats(9, 2), _floats(9, 2)],
            num_heads=2,
        ),
        _model(
            "EmbedLayerNormalization",
            [
                _ids(2, 4, below=9),
                _ids(2, 4, below=2),
                _floats(9, 8),
                _floats(6, 8),
                _floats(2, 8),
                *norm,
            ],
            outputs=2,
        ),
        _model(
            "DynamicQuantizeLSTM",
            [
                _floats(3, 2, 4),
                _signed(1, 4, 12),
                _signed(1, 3, 12),
                _floats(1, 24),
                None,
                None,
                None,
                None,
                _floats(1, 12),
                np.zeros((1, 12), np.int8),
                _floats(1, 12),
                np.zeros((1, 12), np.int8),
            ],
            hidden_size=3,
        ),
    ]
