import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from weir.bundle.data_dependent_shapes import find


def reductions(nodes: str, *, constants: str = "", opset: int = 20) -> tuple[str, ...]:
    """The reductions along the batch of a graph of x, FP32 [batch, 5, 4]."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : {opset}, "ai.onnx.ml" : 1]>
        g (float[batch, 5, 4] x) => (y)
        <int64[1] first = {{0}}, int64[1] second = {{1}}, int64[1] last = {{-1}}{constants}>
        {{ {nodes} }}"""
    )
    return find(model.SerializeToString()).reductions


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param("y = ReduceMax (x, second)", id="another axis"),
        pytest.param("y = ReduceMax (x, last)", id="last axis"),
        pytest.param("y = ArgMax<axis = -1> (x)", id="ArgMax"),
        pytest.param("y = ReduceSum<noop_with_empty_axes = 1> (x)", id="no-op"),
        pytest.param(
            "t = Transpose<perm = [1, 0, 2]> (x) e = Exp (t) y = ReduceMax (e, first)",
            id="time first",
        ),
        pytest.param("t = Transpose (x) y = ReduceMax (t, first)", id="reversed"),
        pytest.param(
            """t = Transpose<perm = [1, 0, 2]> (x)  h, n = GRU<hidden_size = 2> (t, w, w)
            s = Squeeze (h, second)  y = ReduceMean<keepdims = 0> (s, first)""",
            id="recurrent",
        ),
        pytest.param(
            "u = Unsqueeze (x, first) d = Concat<axis = 0> (u, u) y = ReduceMean (d, first)",
            id="stacked",
        ),
        pytest.param(
            "r = Reshape (x, front) d = Concat<axis = 0> (r, r) y = ReduceMean (d, first)",
            id="reshaped to the front",
        ),
        pytest.param("e = Expand (x, many) y = ReduceMax (e, first)", id="expanded"),
        pytest.param(
            "u = Unsqueeze (x, first) b = Add (u, x) c = Mul (b, w) y = ReduceSum (c, first)",
            id="broadcast",
        ),
        pytest.param("a = Reshape (second, last) y = ReduceMax (x, a)", id="axes in a chain"),
        pytest.param("s = Shape (x) y = ReduceProd (s, first)", id="of sizes"),
        pytest.param("y = ReduceMax (w, first)", id="of a constant"),
    ],
)
def test_reductions_that_leave_rows_apart(nodes: str) -> None:
    constants = (
        ", float[1, 1, 1] w = {1}, int64[4] front = {1, -1, 5, 4}, int64[4] many = {9, 1, 5, 4}"
    )

    assert reductions(nodes, constants=constants) == ()


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param("y = ReduceMax (x)", id="all axes"),
        pytest.param("y = ReduceMax (x, none)", id="no axis in a list"),
        pytest.param("y = ReduceMax (x, first)", id="first axis"),
        pytest.param("y = ReduceMax (x, third_from_last)", id="first axis from the last"),
        pytest.param("a = Concat<axis = 0> (second, first) y = ReduceMax (x, a)", id="of two"),
        pytest.param("a = Sub (second, second) y = ReduceMax (x, a)", id="unknown axes"),
        pytest.param("e = Exp (x) y = ReduceMax (e, first)", id="of an output"),
        pytest.param("t = Transpose<perm = [1, 0, 2]> (x) y = ReduceMax (t, second)", id="moved"),
        pytest.param(
            """t = Transpose<perm = [1, 0, 2]> (x) u = Transpose<perm = [1, 0, 2]> (t)
            y = ReduceMax (u, first)""",
            id="moved and back",
        ),
        pytest.param("u = Unsqueeze (x, first) y = ReduceMax (u, second)", id="behind a new axis"),
        pytest.param("r = Reshape (x, halves) y = ReduceMax (r, first)", id="in two halves"),
        pytest.param("f = Flatten<axis = 1> (x) y = ReduceMax (f, first)", id="flattened"),
        pytest.param("s = Sin (x) y = ReduceMax<keepdims = 0> (s, first)", id="dropped axis"),
    ],
)
def test_reductions_along_the_batch(nodes: str) -> None:
    constants = ", int64[0] none = {}, int64[1] third_from_last = {-3}, int64[2] halves = {2, -1}"

    assert reductions(nodes, constants=constants) == ("ReduceMax",)


@pytest.mark.parametrize(
    ("kind", "expected"), [("ReduceMax", ("ReduceMax",)), ("ArgMin", ("ArgMin",))]
)
def test_axes_of_old_operators_are_attributes(kind: str, expected: tuple[str, ...]) -> None:
    attribute = "axis = 0" if kind == "ArgMin" else "axes = [0]"

    assert reductions(f"y = {kind}<{attribute}> (x)", opset=11) == expected
    assert reductions(f"y = {kind}<{attribute.replace('0', '1')}> (x)", opset=11) == ()


@pytest.mark.parametrize("shape", [None, ()])
def test_declared_shapes_that_cannot_be_do_no_harm(shape: tuple[int, ...] | None) -> None:
    axes = numpy_helper.from_array(np.array([0, -9], np.int64), "axes")
    for kind in ("Unsqueeze", "Squeeze", "Gather", "Reshape", "MatMul", "Expand"):
        graph = helper.make_graph(
            [
                helper.make_node(kind, ["x", "axes"], ["made"]),
                helper.make_node("ReduceMax", ["made", "axes"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [axes],
        )

        assert find(helper.make_model(graph).SerializeToString()).reductions == ("ReduceMax",)
