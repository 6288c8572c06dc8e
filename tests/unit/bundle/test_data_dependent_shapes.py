from collections.abc import Sequence

import numpy as np
import onnx.defs
import pytest
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.helpers import onnx_models
from weir.bundle.data_dependent_shapes import DataDependentShapes, find
from weir.bundle.errors import BrokenBundle

ALWAYS_COUNTED = {
    "ConcatFromSequence", "If", "ImageDecoder", "Loop", "Optional", "OptionalGetElement",
    "OptionalHasElement", "Scan", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
    "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence",
    "StringNormalizer",
}  # fmt: skip
"""Operators of ONNX that make a shape out of values, or hold what may."""

FROM_VALUES = {"NonMaxSuppression", "NonZero", "StringSplit", "Unique"}
"""Those of which that is true unless their inputs are constants."""

STATIC = DataDependentShapes((), ())


def model(
    *nodes: NodeProto,
    outputs: Sequence[str] = ("y",),
    functions: Sequence[FunctionProto] = (),
) -> bytes:
    """A graph of `x` FP32 [batch, 4], with a few constants."""
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 4))],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", None))
                for name in outputs
            ],
            [
                numpy_helper.from_array(np.array([-1, 2], np.int64), "two_columns"),
                numpy_helper.from_array(np.array([True, False]), "is_kept"),
            ],
        ),
        functions=functions,
    )
    return made.SerializeToString()


def node(kind: str, inputs: Sequence[str], output: str = "y", domain: str = "") -> NodeProto:
    return helper.make_node(kind, inputs, [output], domain=domain)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(onnx_models.affine(), id="arithmetic"),
        pytest.param(onnx_models.fingerprint(1), id="range and expand by a shape"),
        pytest.param(onnx_models.colours(), id="reduction"),
        pytest.param(model(node("Reshape", ["x", "two_columns"])), id="reshape by a constant"),
        pytest.param(model(node("Compress", ["x", "is_kept"])), id="compress by a constant"),
    ],
)
def test_shapes_that_follow_from_shapes(graph: bytes) -> None:
    assert find(graph) == STATIC


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        pytest.param(onnx_models.detector(), (["NonZero"], ["boxes"]), id="NonZero"),
        pytest.param(onnx_models.burner(), (["Loop"], ["steps"]), id="Loop"),
        pytest.param(onnx_models.doubled_above(9.0), (["Tile"], ["y"]), id="Tile by values"),
        pytest.param(onnx_models.scattered(), (["NonZero"], []), id="scattered into a known shape"),
        pytest.param(
            model(node("Cast", ["x"], "shape"), node("Reshape", ["x", "shape"])),
            (["Reshape"], ["y"]),
            id="Reshape by values",
        ),
        pytest.param(
            model(node("BeamSearch", ["x"], domain="com.microsoft")),
            (["BeamSearch"], ["y"]),
            id="unknown operator",
        ),
        pytest.param(model(node("Identity", ["nowhere"])), ([], ["y"]), id="unknown tensor"),
        pytest.param(
            # The shape of a tensor whose shape depends on values is a value itself.
            model(
                node("NonZero", ["x"], "places"),
                node("Shape", ["places"], "shape"),
                node("ConstantOfShape", ["shape"]),
            ),
            (["NonZero", "ConstantOfShape"], ["y"]),
            id="shape of a shape out of values",
        ),
    ],
)
def test_shapes_out_of_values(graph: bytes, expected: tuple[list[str], list[str]]) -> None:
    operators, outputs = expected

    found = find(graph)

    assert (found.operators, found.outputs) == (tuple(operators), tuple(outputs))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([node("ReduceMax", ["x"])], ("ReduceMax",), id="of values"),
        pytest.param([node("ReduceMax", ["x", ""])], ("ReduceMax",), id="an empty name"),
        pytest.param([node("ReduceMax", ["x", "two_columns"])], (), id="axes as an input"),
        pytest.param(
            [helper.make_node("ReduceMax", ["x"], ["y"], axes=[1])], (), id="axes as an attribute"
        ),
        pytest.param(
            [helper.make_node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1)], (), id="no-op"
        ),
        pytest.param(
            [node("Shape", ["x"], "shape"), node("ReduceProd", ["shape"])], (), id="of a shape"
        ),
    ],
)
def test_reductions_of_all_axes_are_found(
    nodes: Sequence[NodeProto], expected: tuple[str, ...]
) -> None:
    assert find(model(*nodes)).reductions == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("Relu", STATIC, id="clean"),
        pytest.param("NonZero", DataDependentShapes(("NonZero",), ("y",)), id="with NonZero"),
    ],
)
def test_local_functions_are_looked_into(kind: str, expected: DataDependentShapes) -> None:
    function = helper.make_function(
        "own",
        "Relu",
        ["a"],
        ["b"],
        [helper.make_node(kind, ["a"], ["b"])],
        [helper.make_opsetid("", 21)],
    )

    assert find(model(node("Relu", ["x"], domain="own"), functions=[function])) == expected


def test_graph_in_several_parts_is_merged() -> None:
    whole = ModelProto.FromString(onnx_models.detector())
    parts = [ModelProto(), ModelProto()]
    parts[0].graph.node.extend(whole.graph.node[:2])
    parts[1].CopyFrom(whole)
    del parts[1].graph.node[:2]

    found = find(b"".join(part.SerializeToString() for part in parts))

    assert found == find(onnx_models.detector())


def test_every_operator_of_onnx_is_classified() -> None:
    """An operator that is new in ONNX counts as a maker of shapes until it is listed."""
    counted = set()
    for schema in onnx.defs.get_all_schemas():
        if schema.domain:
            continue
        found = find(model(node(schema.name, ["x"])))
        if schema.name in found.operators:
            counted.add(schema.name)

    takes_shape_first = {"BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow"}
    assert counted == ALWAYS_COUNTED | FROM_VALUES | takes_shape_first | {
        "MelWeightMatrix",
        "Range",
    }


def test_every_input_that_asks_for_a_shape_is_known() -> None:
    """The names that ONNX gives such inputs are the oracle."""
    asking = {
        "axes", "block_shape", "condition", "depth", "dft_length", "ends", "frame_length",
        "frame_step", "image_shape", "limit", "output_shape", "pads", "repeats", "scales", "shape",
        "size", "sizes", "split", "starts", "steps",
    }  # fmt: skip
    missed = []
    for schema in onnx.defs.get_all_schemas_with_history():
        for place, parameter in enumerate(schema.inputs):
            if schema.domain or parameter.name.lower() not in asking or schema.name == "Where":
                continue
            inputs = ["two_columns"] * place + ["x"]
            if find(model(node(schema.name, inputs))).operators != (schema.name,):
                missed.append((schema.name, parameter.name))

    assert missed == []


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(BrokenBundle, match=r"model\.onnx: expected an ONNX file"):
        find(b"\x3a\xff", "model.onnx")
