"""Each guarded case ends the process without its guard, and this test run with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tests.helpers import onnx_models
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.runtime.graph_analysis import (
    ML_FLOATS,
    ML_LABELS,
    NATURAL,
    NEVER_INTEGER,
    SAME_TYPE,
)
from weir.server.runtime.graph_guards import (
    guard,
)
from weir.server.runtime.session import Session

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
INTEGERS: dict[int, Any] = {INT32: np.int32, INT64: np.int64}


def value(name: str, kind: int, axes: Sequence[int | str] | None = ("n",)) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, axes)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    *,
    opset: int = 21,
    constants: Sequence[TensorProto] = (),
    functions: Sequence[FunctionProto] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    opsets = [
        helper.make_opsetid("", opset),
        helper.make_opsetid("local", 1),
        helper.make_opsetid("com.microsoft", 1),
    ]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    return made.SerializeToString()


def division(kind: int, operator: str = "Div", *, opset: int = 21) -> bytes:
    """y = a / b or a % b, of any number of integers."""
    return model(
        [helper.make_node(operator, ["a", "b"], ["y"])],
        [value("a", kind), value("b", kind)],
        [value("y", kind)],
        opset=opset,
    )


def session(graph: bytes) -> Session:
    return Session(graph, provider="cpu", threads=1)


def pairs(kind: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Extreme dividends and divisors."""
    bounds = np.iinfo(INTEGERS[kind])
    values = [bounds.min, bounds.min + 1, -3, -2, -1, 0, 1, 2, 3, bounds.max - 1, bounds.max]
    found = [(one, other) for one in values for other in values if other]
    dividends, divisors = zip(*found, strict=True)
    return np.array(dividends, INTEGERS[kind]), np.array(divisors, INTEGERS[kind])


def expected(operator: str, dividend: int, divisor: int, bits: int) -> int:
    """Python's integers, with the operator's sign, in the bits of the type."""
    if operator == "Div":
        size = abs(dividend) // abs(divisor)
        result = size if (dividend < 0) == (divisor < 0) else -size
    else:
        result = dividend % divisor
    half = 1 << (bits - 1)
    return (result + half) % (2 * half) - half


def guards_of(graph: bytes) -> int:
    """How many nodes a guard adds."""
    before, after = onnx.load_from_string(graph), onnx.load_from_string(guard(graph).graph)
    return len(after.graph.node) - len(before.graph.node)


@pytest.mark.parametrize("kind", INTEGERS, ids=["int32", "int64"])
@pytest.mark.parametrize(("operator", "opset"), [("Div", 9), ("Div", 21), ("Mod", 10), ("Mod", 21)])
def test_integers_are_divided_as_before_and_the_smallest_by_minus_one_too(
    kind: int, operator: str, opset: int
) -> None:
    dividends, divisors = pairs(kind)

    found = session(division(kind, operator, opset=opset)).run({"a": dividends, "b": divisors})

    bits = np.iinfo(INTEGERS[kind]).bits
    assert found["y"].tolist() == [
        expected(operator, one, other, bits)
        for one, other in zip(dividends.tolist(), divisors.tolist(), strict=True)
    ]


def test_division_by_zero_is_refused_as_before() -> None:
    loaded = session(division(INT64))

    with pytest.raises(InvalidRequest):
        loaded.run({"a": np.array([1]), "b": np.array([0])})


def test_types_are_not_needed() -> None:
    """A file need not declare the types of its own tensors; a body has none."""
    lowest = np.array([np.iinfo(np.int64).min, 7])
    body = helper.make_function(
        "local", "Divide", ["p", "q"], ["r"],
        [helper.make_node("Div", ["p", "q"], ["r"])], [helper.make_opsetid("", 21)],
    )  # fmt: skip
    graph = model(
        [helper.make_node("Divide", ["a", "b"], ["y"], domain="local")],
        [value("a", INT64), value("b", INT64)],
        [value("y", INT64)],
        functions=[body],
    )
    floats = model(
        [helper.make_node("Divide", ["a", "b"], ["y"], domain="local")],
        [value("a", FLOAT), value("b", FLOAT)],
        [value("y", FLOAT)],
        functions=[body],
    )
    numbers = np.array([-0.0, 3.0, np.inf, 5.0], np.float32)
    by = np.array([-1.0, -1.0, -1.0, 0.0], np.float32)

    assert session(graph).run({"a": lowest, "b": -np.ones(2, np.int64)})["y"].tolist() == [
        lowest[0],
        -7,
    ]
    with np.errstate(divide="ignore"):
        assert (
            session(floats).run({"a": numbers, "b": by})["y"].tobytes() == (numbers / by).tobytes()
        )


def test_division_in_a_subgraph_is_guarded() -> None:
    branch = helper.make_graph(
        [helper.make_node("Div", ["a", "b"], ["r"])], "branch", [], [value("r", INT64)]
    )
    graph = model(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        [value("a", INT64), value("b", INT64), value("c", TensorProto.BOOL, ())],
        [value("y", INT64)],
    )
    lowest = np.array([np.iinfo(np.int64).min])

    found = session(graph).run({"a": lowest, "b": np.array([-1]), "c": np.array(True)})

    assert found["y"].tolist() == lowest.tolist()


def test_constant_minus_one_is_guarded() -> None:
    minus_one = numpy_helper.from_array(np.array(-1), "b")
    nodes = [helper.make_node("Div", ["a", "b"], ["y"])]
    graph = model(nodes, [value("a", INT64)], [value("y", INT64)], constants=[minus_one])
    lowest = np.array([np.iinfo(np.int64).min])

    assert session(graph).run({"a": lowest})["y"].tolist() == lowest.tolist()


def test_divisor_that_a_request_may_replace_is_no_constant() -> None:
    two = numpy_helper.from_array(np.array([2]), "b")
    nodes = [helper.make_node("Div", ["a", "b"], ["y"])]
    inputs = [value("a", INT64), value("b", INT64, (1,))]

    assert guards_of(model(nodes, inputs, [value("y", INT64)], constants=[two])) > 0


def number(name: str, content: Any) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(content))


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([number("d", np.array(2))], id="constant"),
        pytest.param([number("d", np.array([-2, 3]))], id="negative constant"),
        pytest.param([helper.make_node("Constant", [], ["d"], value_int=7)], id="value_int"),
        pytest.param([helper.make_node("Constant", [], ["d"], value_ints=[7, 8])], id="value_ints"),
        pytest.param(
            [number("c", np.array([4])), helper.make_node("Squeeze", ["c"], ["d"])], id="squeezed"
        ),
        pytest.param([helper.make_node("Shape", ["a"], ["d"])], id="shape"),
        pytest.param([helper.make_node("Size", ["a"], ["d"])], id="size"),
        pytest.param(
            [
                helper.make_node("Shape", ["a"], ["s"]),
                number("i", np.array(0)),
                helper.make_node("Gather", ["s", "i"], ["d"]),
            ],
            id="a size of a shape",
        ),
        pytest.param(
            [number("c", np.array(1)), helper.make_node("Max", ["a", "c"], ["d"])],
            id="one or more",
        ),
    ],
)
def test_divisor_that_is_never_minus_one_needs_no_guard(nodes: Sequence[NodeProto]) -> None:
    divides = [helper.make_node(kind, ["a", "d"], [kind]) for kind in ("Div", "Mod")]
    outputs = [value("Div", INT64), value("Mod", INT64)]
    graph = model([*nodes, *divides], [value("a", INT64)], outputs)

    assert guard(graph).graph is graph


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([helper.make_node("Sqrt", ["x"], ["d"])], id="Sqrt"),
        pytest.param(
            [helper.make_node("ReduceSum", ["x"], ["s"]), helper.make_node("Abs", ["s"], ["d"])],
            id="of a declared input",
        ),
        pytest.param(
            [helper.make_node("Cast", ["n"], ["d"], to=FLOAT)],
            id="Cast",
        ),
        pytest.param(
            [helper.make_node("Split", ["x"], ["e", "d"], num_outputs=2)], id="second of a Split"
        ),
    ],
)
def test_floats_are_divided_without_a_guard(nodes: Sequence[NodeProto]) -> None:
    divides = helper.make_node("Div", ["x", "d"], ["y"])
    inputs = [value("x", FLOAT), value("n", INT64)]

    assert guards_of(model([*nodes, divides], inputs, [value("y", FLOAT)])) == 0


def test_sizes_that_overflow_prove_nothing() -> None:
    """[0, 2**32 - 1] and [0, 2**32 + 1] are shapes of empty tensors; -1 is the product."""
    nodes = [
        helper.make_node("Size", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "s"], ["d"]),
        helper.make_node("Div", ["a", "d"], ["y"]),
    ]
    inputs = [value("x", FLOAT), value("a", INT64)]

    assert guards_of(model(nodes, inputs, [value("y", INT64)])) > 0


def test_operator_set_without_guards_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"^operator Div: .* needs opset 9, got 8$"):
        guard(division(INT64, opset=8))


def only(
    kind: str, inputs: dict[str, tuple[int, Sequence[int | str] | None]], **attributes: Any
) -> bytes:
    """A graph of one operator with these inputs, by type and axes."""
    return model(
        [helper.make_node(kind, list(inputs), ["y"], **attributes)],
        [value(name, *described) for name, described in inputs.items()],
        [helper.make_empty_tensor_value_info("y")],
        opset=23,
    )


def zeros(*shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    return np.zeros(shape, dtype)


EMPTY = {
    "ConvTranspose": (
        only(
            "ConvTranspose",
            {"x": (FLOAT, ("b", 1, "d", "h", "w")), "w": (FLOAT, (1, 1, 3, 3, 3))},
        ),
        {"x": zeros(1, 1, 0, 3, 3), "w": zeros(1, 1, 3, 3, 3)},
        {"x": zeros(1, 1, 1, 3, 3), "w": zeros(1, 1, 3, 3, 3)},
    ),
    "Unique": (
        only("Unique", {"x": (FLOAT, ("n", "m"))}, axis=0),
        {"x": zeros(3, 0)},
        {"x": zeros(3, 1)},
    ),
    "STFT, window": (
        only("STFT", {"x": (FLOAT, (1, 8, 1)), "s": (INT64, ()), "w": (FLOAT, ("n",))}),
        {"x": zeros(1, 8, 1), "s": np.array(2), "w": zeros(0)},
        {"x": zeros(1, 8, 1), "s": np.array(2), "w": zeros(4)},
    ),
    "Attention": (
        only("Attention", dict.fromkeys("qkv", (FLOAT, ("b", "h", "t", 4)))),
        {"q": zeros(1, 2, 3, 4), "k": zeros(1, 0, 3, 4), "v": zeros(1, 0, 3, 4)},
        {"q": zeros(1, 2, 3, 4), "k": zeros(1, 2, 3, 4), "v": zeros(1, 2, 3, 4)},
    ),
    "QuantizeLinear": (
        only(
            "QuantizeLinear",
            {"x": (FLOAT, (3, "n")), "s": (FLOAT, (3, "m"))},
            axis=1,
            block_size=2,
        ),
        {"x": zeros(3, 0), "s": zeros(3, 0)},
        {"x": zeros(3, 2), "s": np.ones((3, 1), np.float32)},
    ),
}


HIDDEN = ("b", "t", 8)
ROWS = zeros(2, 3, 8)
MICROSOFT = {
    "Inverse": (
        only("Inverse", {"x": (FLOAT, ("n", "m"))}, domain="com.microsoft"),
        {"x": zeros(3, 0)},
        {"x": np.eye(3, dtype=np.float32)},
    ),
    "Inverse, not square": (
        only("Inverse", {"x": (FLOAT, ("n", "m"))}, domain="com.microsoft"),
        {"x": zeros(3, 4)},
        {"x": np.eye(2, dtype=np.float32)},
    ),
    "MultiHeadAttention": (
        only(
            "MultiHeadAttention",
            {"q": (FLOAT, HIDDEN), "k": (FLOAT, HIDDEN), "v": (FLOAT, ("b", "t", "d"))},
            domain="com.microsoft",
            num_heads=2,
        ),
        {"q": ROWS, "k": ROWS, "v": zeros(2, 3, 0)},
        {"q": ROWS, "k": ROWS, "v": ROWS},
    ),
    "RotaryEmbedding": (
        only(
            "RotaryEmbedding",
            {
                "x": (FLOAT, ("b", "t", "d")),
                "p": (INT64, ("b", "t")),
                "c": (FLOAT, (9, 2)),
                "s": (FLOAT, (9, 2)),
            },
            domain="com.microsoft",
            num_heads=2,
        ),
        {"x": zeros(2, 3, 0), "p": zeros(2, 3, dtype=np.int64), "c": zeros(9, 2), "s": zeros(9, 2)},
        {"x": ROWS, "p": zeros(2, 3, dtype=np.int64), "c": zeros(9, 2), "s": zeros(9, 2)},
    ),
    **{
        name: (
            only(
                name,
                {"x": (FLOAT, HIDDEN), "s": (FLOAT, HIDDEN), "g": (FLOAT, (8,))},
                domain="com.microsoft",
            ),
            {"x": ROWS, "s": zeros(0, 3, 8), "g": zeros(8)},
            {"x": ROWS, "s": ROWS, "g": zeros(8)},
        )
        for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    },
}


@pytest.mark.parametrize(
    ("graph", "empty", "full"),
    [*EMPTY.values(), *MICROSOFT.values()],
    ids=[*EMPTY, *MICROSOFT],
)
def test_empty_input_is_refused(
    graph: bytes, empty: dict[str, NDArray[Any]], full: dict[str, NDArray[Any]]
) -> None:
    loaded = session(graph)

    with pytest.raises(InvalidRequest, match=r"^the model cannot compute with these inputs$"):
        loaded.run(empty)

    plain = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(loaded.run(full)["y"], plain.run(["y"], full)[0])


def test_layers_after_a_guard_need_none() -> None:
    """A transformer of many layers gets the guards of its first one."""

    def layers(count: int) -> bytes:
        nodes = []
        for layer in range(count):
            before, after = f"x{layer}", f"x{layer + 1}"
            nodes += [
                helper.make_node("Relu", [before], [f"r{layer}"]),
                helper.make_node(
                    "SkipLayerNormalization",
                    [f"r{layer}", before, "gamma"],
                    [after],
                    domain="com.microsoft",
                ),
            ]
        gamma = numpy_helper.from_array(np.ones(8, np.float32), "gamma")
        outputs = [helper.make_empty_tensor_value_info(f"x{count}")]
        return model(nodes, [value("x0", FLOAT, HIDDEN)], outputs, constants=[gamma])

    assert guards_of(layers(9)) == guards_of(layers(1)) > 0


def test_quantised_product_takes_constant_scales_only() -> None:
    """The kernel reads past the weights if there are more scales than columns."""
    scales = numpy_helper.from_array(np.ones(1, np.float32), "s")
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain="com.microsoft")
    values = [value("x", FLOAT, ("n", 8)), value("w", TensorProto.INT8, (8, 6))]
    outputs = [helper.make_empty_tensor_value_info("y")]

    session(model([node], values, outputs, constants=[scales]))
    with pytest.raises(ModelLoadError, match=r"^operator DynamicQuantizeMatMul: expected constant"):
        session(model([node], [*values, value("s", FLOAT)], outputs))


def test_frame_of_length_zero_is_refused() -> None:
    nodes = [helper.make_node("STFT", ["x", "s", "", "l"], ["y"])]
    inputs = [value("x", FLOAT, (1, 8, 1)), value("s", INT64, ()), value("l", INT64, ())]
    loaded = session(model(nodes, inputs, [helper.make_empty_tensor_value_info("y")]))
    signal, step = zeros(1, 8, 1), np.array(2)

    with pytest.raises(InvalidRequest):
        loaded.run({"x": signal, "s": step, "l": np.array(0)})

    assert loaded.run({"x": signal, "s": step, "l": np.array(4)})["y"].shape == (1, 3, 3, 2)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_sequence_that_becomes_empty_on_the_way_is_refused(cell: str) -> None:
    """The kernel aborts; here the first step is cut off."""
    whole = onnx.load_from_string(onnx_models.recurrent(cell))
    assert guards_of(whole.SerializeToString()) == 0
    whole.graph.node[0].input[0] = "rest"
    for name, content in (("one", [1]), ("end", [99]), ("first", [0])):
        whole.graph.initializer.append(numpy_helper.from_array(np.array(content), name))
    cut = helper.make_node("Slice", ["x", "one", "end", "first"], ["rest"])
    whole.graph.node.insert(0, cut)
    loaded = session(whole.SerializeToString())

    with pytest.raises(InvalidRequest):
        loaded.run({"x": zeros(1, 1, 2)})

    assert loaded.run({"x": zeros(3, 1, 2)})["y"].shape == (2, 1, 1, 3)


def test_number_of_axes_that_a_kernel_trusts_must_be_known() -> None:
    named, free = ({"x": (FLOAT, axes)} for axes in (("n", "m"), None))

    session(only("Einsum", named, equation="ij->ji")).check_axes()  # type: ignore[arg-type]
    with pytest.raises(ModelLoadError, match=r"^input 'x' has no shape, and operator Einsum would"):
        session(only("Einsum", free, equation="ij->ji")).check_axes()  # type: ignore[arg-type]


def test_concatenation_of_tensors_without_shape_takes_no_empty_one() -> None:
    """The kernel aborts if the empty one has another number of axes."""
    loaded = session(only("Concat", {"a": (FLOAT, None), "b": (FLOAT, None)}, axis=0))

    with pytest.raises(InvalidRequest, match=r"^input 'a': expected 1 or more elements"):
        loaded.run({"a": zeros(0), "b": zeros(2, 2)})

    assert loaded.run({"a": zeros(1, 2), "b": zeros(2, 2)})["y"].shape == (3, 2)


def schemas(domain: str = "") -> list[Any]:
    return [each for each in onnx.defs.get_all_schemas_with_history() if each.domain == domain]


def types_of(schema: Any, parameter: Any) -> set[str]:
    for constraint in schema.type_constraints:
        if constraint.type_param_str == parameter.type_str:
            return set(constraint.allowed_type_strs)
    return {parameter.type_str}


def test_what_is_said_of_types_holds_in_every_version_of_an_operator() -> None:
    integers = {"tensor(int32)", "tensor(int64)"}
    names = {schema.name for schema in schemas()}
    assert names >= SAME_TYPE | NEVER_INTEGER | NATURAL

    for schema in schemas():
        if schema.name in SAME_TYPE:
            assert schema.outputs[0].type_str == schema.inputs[0].type_str, schema.name
        if schema.name in NEVER_INTEGER:
            assert not types_of(schema, schema.outputs[0]) & integers, schema.name
            known = schema.name in ("MaxPool", "StringSplit")
            others = schema.outputs[1 : 1 if known else None]
            assert not any(types_of(schema, other) & integers for other in others), schema.name
        if schema.name in NATURAL:
            assert types_of(schema, schema.outputs[0]) == {"tensor(int64)"}, schema.name
    for schema in schemas("ai.onnx.ml"):
        place = 0 if schema.name in ML_FLOATS else 1
        if schema.name in ML_FLOATS | ML_LABELS:
            assert not types_of(schema, schema.outputs[place]) & integers, schema.name
