"""Tiny ONNX models whose answers are known beforehand, for the tests of the server.

Import it as `from tests import onnx_models`. Every function returns a serialized model. Unless its
docstring says otherwise, a model takes `x`, gives `y`, and its first axis is called `batch`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from weir.bundle.golden import Golden

Axes = Sequence[int | str | None]

_OPSET = 21
_IR_VERSION = 10
_HASH_MODULUS = 1_000_003
_BURNER_WIDTH = 64


def echo(datatype: int = TensorProto.FLOAT, axes: Axes = ("batch", 4)) -> bytes:
    """y = x, of any ONNX datatype (`TensorProto.…`) and axes."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return _model("echo", [node], [_value("x", datatype, axes)], [_value("y", datatype, axes)])


def affine(width: int | str = 4, *, slope: float = 2.0, offset: float = 1.0) -> bytes:
    """y = 2x + 1 in FP32, x and y [batch, width]."""
    nodes = [
        helper.make_node("Mul", ["x", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["y"]),
    ]
    constants = [_constant("slope", np.float32(slope)), _constant("offset", np.float32(offset))]
    axes = ("batch", width)
    return _model(
        "affine",
        nodes,
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
        constants,
    )


def fingerprint(version: int) -> bytes:
    """`row` INT64 [batch, n] → `echo` [batch, n], `hash` [batch] (`hash_of`) and `version` [batch].

    Integers only, so exact whatever the batch: it finds mixed rows and stale versions.
    """
    nodes = [
        helper.make_node("Identity", ["row"], ["echo"]),
        helper.make_node("Shape", ["row"], ["width"], start=1, end=2),
        helper.make_node("Squeeze", ["width"], ["width_scalar"]),
        helper.make_node("Range", ["zero", "width_scalar", "one"], ["position"]),
        helper.make_node("Add", ["position", "one"], ["place"]),
        # Kept small: the runtime adds INT64 as doubles, exact to 2**53 only.
        helper.make_node("Mod", ["row", "modulus"], ["rest"]),
        helper.make_node("Mul", ["rest", "place"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "last_axis"], ["hash"], keepdims=0),
        helper.make_node("Shape", ["row"], ["rows"], start=0, end=1),
        helper.make_node("Expand", ["served_version", "rows"], ["version"]),
    ]
    constants = [
        _constant("zero", np.int64(0)),
        _constant("one", np.int64(1)),
        _constant("modulus", np.int64(_HASH_MODULUS)),
        _constant("last_axis", np.array([1], np.int64)),
        _constant("served_version", np.array([version], np.int64)),
    ]
    return _model(
        "fingerprint",
        nodes,
        [_value("row", TensorProto.INT64, ("batch", "n"))],
        [
            _value("echo", TensorProto.INT64, ("batch", "n")),
            _value("hash", TensorProto.INT64, ("batch",)),
            _value("version", TensorProto.INT64, ("batch",)),
        ],
        constants,
    )


def hash_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """What `fingerprint` answers as `hash` for rows (batch, n): an integer a row, (batch,)."""
    places = np.arange(1, rows.shape[1] + 1, dtype=np.int64)
    hashes: NDArray[np.int64] = (rows % _HASH_MODULUS * places).sum(axis=1)
    return hashes


def burner() -> bytes:
    """`iterations` INT64 [batch, 1] → itself as `echo`, and `steps`, the batch's maximum.

    A loop of as many matrix products as the largest number in the batch: the time of a run is the
    caller's to choose (`iterations_for` measures it).
    """
    matrix = _constant("matrix", np.eye(_BURNER_WIDTH, dtype=np.float32))
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "matrix"], ["next_state"]),
            helper.make_node("Add", ["step", "one"], ["next_step"]),
            helper.make_node("Identity", ["go_on"], ["still_go_on"]),
        ],
        "body",
        [
            _value("index", TensorProto.INT64, ()),
            _value("go_on", TensorProto.BOOL, ()),
            _value("step", TensorProto.INT64, ()),
            _value("state", TensorProto.FLOAT, (_BURNER_WIDTH, _BURNER_WIDTH)),
        ],
        [
            _value("still_go_on", TensorProto.BOOL, ()),
            _value("next_step", TensorProto.INT64, ()),
            _value("next_state", TensorProto.FLOAT, (_BURNER_WIDTH, _BURNER_WIDTH)),
        ],
    )
    nodes = [
        helper.make_node("Identity", ["iterations"], ["echo"]),
        helper.make_node("ReduceMax", ["iterations"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "", "zero", "matrix"], ["count", "last"], body=body),
        helper.make_node("Shape", ["iterations"], ["shape"]),
        helper.make_node("Expand", ["count", "shape"], ["steps"]),
    ]
    constants = [
        matrix,
        _constant("zero", np.int64(0)),
        _constant("one", np.int64(1)),
    ]
    axes = ("batch", 1)
    return _model(
        "burner",
        nodes,
        [_value("iterations", TensorProto.INT64, axes)],
        [_value("echo", TensorProto.INT64, axes), _value("steps", TensorProto.INT64, axes)],
        constants,
    )


def gather(vocabulary: int = 8) -> bytes:
    """`tokens` INT64 [batch, time] → `y` FP32 [batch, time], the token times ten.

    A token of `vocabulary` or more is refused by the runtime, in the middle of a run.
    """
    table = _constant("table", np.arange(vocabulary, dtype=np.float32) * 10)
    return _model(
        "gather",
        [helper.make_node("Gather", ["table", "tokens"], ["y"])],
        [_value("tokens", TensorProto.INT64, ("batch", "time"))],
        [_value("y", TensorProto.FLOAT, ("batch", "time"))],
        [table],
    )


def mean_of_steps() -> bytes:
    """`tokens` INT64 [batch, time] and `lengths` → `y` FP32 [batch], the mean of all steps.

    What fills a row up counts, so a row in a padded batch does not get what it gets alone.
    """
    nodes = [
        helper.make_node("Cast", ["tokens"], ["steps"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["steps", "time_axis"], ["y"], keepdims=0),
    ]
    inputs = [
        _value("tokens", TensorProto.INT64, ("batch", "time")),
        _value("lengths", TensorProto.INT64, ("batch",)),
    ]
    outputs = [_value("y", TensorProto.FLOAT, ("batch",))]
    return _model(
        "mean_of_steps", nodes, inputs, outputs, [_constant("time_axis", np.array([1], np.int64))]
    )


def refuses_zero() -> bytes:
    """`x` INT64 [batch, 1] → y = 7 + x, 7 from the row 1 - x of a table: 0 is out of its range.

    All other axes are fixed, so a plain model of it is warmed up, and fails with the zeros.
    """
    nodes = [
        helper.make_node("Sub", ["one", "x"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["seven"]),
        helper.make_node("Add", ["seven", "x"], ["y"]),
    ]
    axes = ("batch", 1)
    return _model(
        "refuses_zero",
        nodes,
        [_value("x", TensorProto.INT64, axes)],
        [_value("y", TensorProto.INT64, axes)],
        [_constant("one", np.int64(1)), _constant("table", np.array([7], np.int64))],
    )


def at_most(rows: int) -> bytes:
    """y = x INT64 [batch, 1]; a batch of more rows is refused by the runtime."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Sub", ["rows", "one"], ["last"]),
        helper.make_node("Gather", ["zeros", "last"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    axes = ("batch", 1)
    return _model(
        "at_most",
        nodes,
        [_value("x", TensorProto.INT64, axes)],
        [_value("y", TensorProto.INT64, axes)],
        [_constant("one", np.array([1], np.int64)), _constant("zeros", np.zeros(rows, np.int64))],
    )


def needing(memory_bytes: int) -> bytes:
    """y = x FP32 [batch, 4], by way of so many bytes for each row."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["many"]),
        helper.make_node("ReduceMax", ["many", "first"], ["y"], keepdims=0),
    ]
    return _model(
        "needing",
        nodes,
        [_value("x", TensorProto.FLOAT, ("batch", 4))],
        [_value("y", TensorProto.FLOAT, ("batch", 4))],
        [
            _constant("shape", np.array([memory_bytes // 16, 1, 4])),
            _constant("first", np.array([0])),
        ],
    )


def wide(weight_bytes: int) -> bytes:
    """y = x FP32 [batch, n], with so many bytes of weights."""
    width = weight_bytes // 4
    return _model(
        "wide",
        [helper.make_node("Add", ["x", "zeros"], ["y"])],
        [_value("x", TensorProto.FLOAT, ("batch", width))],
        [_value("y", TensorProto.FLOAT, ("batch", width))],
        [_constant("zeros", np.zeros(width, np.float32))],
    )


def dense(width: int) -> bytes:
    """y = x w, FP32 [batch, width]; the weights take 4 width² bytes, a row few."""
    axes = ("batch", width)
    return _model(
        "dense",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
        [_constant("w", np.full((width, width), 1 / width, np.float32))],
    )


def cube() -> bytes:
    """y FP32 [batch] = the maximum of x FP32 [batch, n], by way of n³ values for each row."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "middle"], ["deep"]),
        helper.make_node("Shape", ["x"], ["n"], start=1, end=2),
        helper.make_node("Concat", ["one", "n", "n", "one"], ["shape"], axis=0),
        helper.make_node("Expand", ["deep", "shape"], ["cube"]),
        helper.make_node("ReduceMax", ["cube", "all"], ["y"], keepdims=0),
    ]
    constants = {"middle": [1, 2], "one": [1], "all": [1, 2, 3]}
    return _model(
        "cube",
        nodes,
        [_value("x", TensorProto.FLOAT, ("batch", "n"))],
        [_value("y", TensorProto.FLOAT, ("batch",))],
        [_constant(name, np.array(values)) for name, values in constants.items()],
    )


def detector(width: int = 512, *, axis: str | None = "batch") -> bytes:
    """`x` FP32 [batch, width] → `boxes` FP32 [batch, 1], each number above 0.

    So its first axis is called the batch axis and is not: a row has any number of boxes.
    """
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["is_box"]),
        helper.make_node("NonZero", ["is_box"], ["places"]),
        helper.make_node("Transpose", ["places"], ["indices"]),
        helper.make_node("GatherND", ["x", "indices"], ["values"]),
        helper.make_node("Unsqueeze", ["values", "last_axis"], ["boxes"]),
    ]
    return _model(
        "detector",
        nodes,
        [_value("x", TensorProto.FLOAT, (axis, width))],
        [_value("boxes", TensorProto.FLOAT, (axis, 1))],
        [_constant("zero", np.float32(0)), _constant("last_axis", np.array([1], np.int64))],
    )


def counted(model: bytes, name: str = "boxes") -> bytes:
    """The model with another output, `count` INT64 [1]: how many rows the output `name` has."""
    loaded = onnx.load_from_string(model)
    loaded.graph.node.append(helper.make_node("Shape", [name], ["count"], start=0, end=1))
    loaded.graph.output.append(_value("count", TensorProto.INT64, (1,)))
    return loaded.SerializeToString()


def with_first_axes(model: bytes, *names: str | None) -> bytes:
    """The model with other names, or none, of the first axes of its inputs, then of its outputs."""
    loaded = onnx.load_from_string(model)
    values = [*loaded.graph.input, *loaded.graph.output]
    for value, name in zip(values, names, strict=True):
        axis = value.type.tensor_type.shape.dim[0]
        axis.Clear()
        if name is not None:
            axis.dim_param = name
    return loaded.SerializeToString()


def positive_part(width: int = 4) -> bytes:
    """y = max(x, 0) FP32 [batch, width], in a branch of an `If` that no value decides."""

    def branch(name: str, node: NodeProto) -> GraphProto:
        output = _value(name, TensorProto.FLOAT, ("batch", width))
        return helper.make_graph([node], name, [], [output])

    nodes = [
        helper.make_node("Shape", ["x"], ["width"], start=1, end=2),
        helper.make_node("Greater", ["width", "zero"], ["is_any"]),
        helper.make_node(
            "If",
            ["is_any"],
            ["y"],
            then_branch=branch("positive", helper.make_node("Relu", ["x"], ["positive"])),
            else_branch=branch("same", helper.make_node("Identity", ["x"], ["same"])),
        ),
    ]
    axes = ("batch", width)
    return _model(
        "positive_part",
        nodes,
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
        [_constant("zero", np.array([0], np.int64))],
    )


def scattered(width: int = 4) -> bytes:
    """y = x where x is above 0, else 0, FP32 [batch, width], by way of the places of those numbers.

    A shape inside depends on values; that of y does not.
    """
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["is_kept"]),
        helper.make_node("NonZero", ["is_kept"], ["places"]),
        helper.make_node("Transpose", ["places"], ["indices"]),
        helper.make_node("GatherND", ["x", "indices"], ["values"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ScatterND", ["zeros", "indices", "values"], ["y"]),
    ]
    axes = ("batch", width)
    return _model(
        "scattered",
        nodes,
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
        [_constant("zero", np.float32(0))],
    )


def softmax_of_batch(width: int = 4) -> bytes:
    """y = softmax over the first axis, FP32 [batch, width]: rows depend on each other."""
    axes = ("batch", width)
    return _model(
        "softmax_of_batch",
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
    )


def doubled_above(threshold: float, width: int = 4) -> bytes:
    """y = x FP32 [batch, width], repeated below if any number is above the threshold."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "threshold"], ["is_above"]),
        helper.make_node("Cast", ["is_above"], ["more"], to=TensorProto.INT64),
        helper.make_node("Add", ["more", "ones"], ["of_rows"]),
        helper.make_node("Concat", ["of_rows", "ones"], ["repeats"], axis=0),
        helper.make_node("Tile", ["x", "repeats"], ["y"]),
    ]
    axes = ("batch", width)
    return _model(
        "doubled_above",
        nodes,
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
        [_constant("threshold", np.float32(threshold)), _constant("ones", np.array([1], np.int64))],
    )


def fails_above(threshold: float) -> bytes:
    """y = x FP32 [4]; above the threshold a node fails for a reason that is not in its input."""

    def branch(name: str, node: NodeProto) -> GraphProto:
        return helper.make_graph([node], name, [], [_value(name, TensorProto.FLOAT, (4,))])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "threshold"], ["is_above"]),
        helper.make_node(
            "If",
            ["is_above"],
            ["y"],
            # ONNX Runtime refuses Mod on floats without `fmod`, and only when it runs.
            then_branch=branch("failed", helper.make_node("Mod", ["x", "x"], ["failed"])),
            else_branch=branch("same", helper.make_node("Identity", ["x"], ["same"])),
        ),
    ]
    return _model(
        "fails_above",
        nodes,
        [_value("x", TensorProto.FLOAT, (4,))],
        [_value("y", TensorProto.FLOAT, (4,))],
        [_constant("threshold", np.float32(threshold))],
    )


def first_rows(most: int) -> bytes:
    """y = the first rows of x, at most so many, FP32 [batch, 4]."""
    axes = ("batch", 4)
    return _model(
        "first_rows",
        [helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"])],
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
        [
            _constant("start", np.array([0], np.int64)),
            _constant("end", np.array([most], np.int64)),
            _constant("axis", np.array([0], np.int64)),
        ],
    )


def first_long_rows(most: int) -> bytes:
    """y = x FP32 [batch, time]; of rows of more than 8 entries, the first ones, at most so many."""
    axes = ("batch", "time")
    nodes = [
        helper.make_node("Shape", ["x"], ["time"], start=1, end=2),
        helper.make_node("Greater", ["time", "eight"], ["is_long"]),
        helper.make_node("Where", ["is_long", "few", "all"], ["end"]),
        helper.make_node("Slice", ["x", "start", "end", "start"], ["y"]),
    ]
    return _model(
        "first_long_rows",
        nodes,
        [_value("x", TensorProto.FLOAT, axes)],
        [_value("y", TensorProto.FLOAT, axes)],
        [
            _constant(name, np.array([value], np.int64))
            for name, value in (("eight", 8), ("few", most), ("all", 2**31), ("start", 0))
        ],
    )


def nan_passthrough(width: int = 4) -> bytes:
    """y = the sum of each row, FP32 [batch, width] → [batch]: a NaN spoils its own row alone."""
    return _model(
        "nan_passthrough",
        [helper.make_node("ReduceSum", ["x", "last_axis"], ["y"], keepdims=0)],
        [_value("x", TensorProto.FLOAT, ("batch", width))],
        [_value("y", TensorProto.FLOAT, ("batch",))],
        [_constant("last_axis", np.array([1], np.int64))],
    )


def arithmetic() -> bytes:
    """`a` and `b` FP32 [batch, 3] → `sum` and `product` FP32 [batch, 3]."""
    names = ("a", "b"), ("sum", "product")
    inputs, outputs = (
        [_value(name, TensorProto.FLOAT, ("batch", 3)) for name in group] for group in names
    )
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Mul", ["a", "b"], ["product"]),
    ]
    return _model("arithmetic", nodes, inputs, outputs)


def ending_in(suffix: bytes) -> bytes:
    """y = x and a suffix, which may be any bytes: strings [batch, 4]."""
    node = helper.make_node("StringConcat", ["x", "suffix"], ["y"])
    strings = [_value(name, TensorProto.STRING, ("batch", 4)) for name in ("x", "y")]
    constant = TensorProto(
        name="suffix", data_type=TensorProto.STRING, dims=(), string_data=[suffix]
    )
    return _model("ending_in", [node], strings[:1], strings[1:], [constant])


def sum_and_difference(datatype: int) -> bytes:
    """INPUT0, INPUT1 [batch, 16] → OUTPUT0, their sum, and OUTPUT1, their difference.

    The model `simple` of Triton's examples; numbers as text if the datatype is STRING.
    """
    nodes = [
        helper.make_node("Cast", ["INPUT0"], ["a"], to=TensorProto.INT32),
        helper.make_node("Cast", ["INPUT1"], ["b"], to=TensorProto.INT32),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Cast", ["sum"], ["OUTPUT0"], to=datatype),
        helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=datatype),
    ]
    inputs, outputs = (
        [_value(f"{name}{number}", datatype, ("batch", 16)) for number in (0, 1)]
        for name in ("INPUT", "OUTPUT")
    )
    return _model("sum_and_difference", nodes, inputs, outputs)


def slow_identity(size: int = 256, products: int = 20) -> bytes:
    """y = x in FP32 [batch, size], by matrix products that take milliseconds a row."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
        helper.make_node("Mul", ["column", "identity"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{each}", "identity"], [f"product{each + 1}"])
            for each in range(products)
        ),
        helper.make_node("ReduceSum", [f"product{products}", "middle"], ["y"], keepdims=0),
    ]
    return _model(
        "slow_identity",
        nodes,
        [_value("x", TensorProto.FLOAT, ("batch", size))],
        [_value("y", TensorProto.FLOAT, ("batch", size))],
        [
            _constant("identity", np.eye(size, dtype=np.float32)),
            _constant("last", np.array([2])),
            _constant("middle", np.array([1])),
        ],
    )


def quotient() -> bytes:
    """y = a / b, INT64 [batch, 1]."""
    a, b, y = (_value(name, TensorProto.INT64, ("batch", 1)) for name in ("a", "b", "y"))
    return _model("quotient", [helper.make_node("Div", ["a", "b"], ["y"])], [a, b], [y])


def counting() -> bytes:
    """`times` INT64 [] → `y` INT64 [], counted up to it one by one; 2**62 takes for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["still"]),
            helper.make_node("Add", ["before", "one"], ["after"]),
        ],
        "body",
        [
            _value("pass", TensorProto.INT64, ()),
            _value("goes_on", TensorProto.BOOL, ()),
            _value("before", TensorProto.INT64, ()),
        ],
        [_value("still", TensorProto.BOOL, ()), _value("after", TensorProto.INT64, ())],
        [_constant("one", np.int64(1))],
    )
    return _model(
        "counting",
        [helper.make_node("Loop", ["times", "", "zero"], ["y"], body=body)],
        [_value("times", TensorProto.INT64, ())],
        [_value("y", TensorProto.INT64, ())],
        [_constant("zero", np.int64(0))],
    )


def recurrent(cell: str) -> bytes:
    """`x` FP32 [time, rows, 2] → `y` FP32 [time, 1, rows, 3], the states of an RNN, GRU or LSTM."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[cell]
    node = helper.make_node(cell, ["x", "w", "r"], ["y"], hidden_size=3)
    return _model(
        "recurrent",
        [node],
        [_value("x", TensorProto.FLOAT, ("time", "rows", 2))],
        [_value("y", TensorProto.FLOAT, ("time", 1, "rows", 3))],
        [
            _constant("w", np.ones((1, gates * 3, 2), np.float32)),
            _constant("r", np.ones((1, gates * 3, 3), np.float32)),
        ],
    )


def unequal_sum(name: str) -> bytes:
    """y = a + b, FP32 [batch, n] and [batch, m]: it fails unless n = m; `name` is its node's."""
    node = helper.make_node("Add", ["a", "b"], ["y"], name=name)
    ends = [("a", "n"), ("b", "m"), ("y", "k")]
    a, b, y = (_value(end, TensorProto.FLOAT, ("batch", axis)) for end, axis in ends)
    return _model("unequal_sum", [node], [a, b], [y])


def without_rows() -> bytes:
    """y = the sum of all of x, FP32 [time, 2] → a scalar: requests cannot be put together."""
    return _model(
        "without_rows",
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [_value("x", TensorProto.FLOAT, ("time", 2))],
        [_value("y", TensorProto.FLOAT, ())],
    )


def sizer() -> bytes:
    """`size` INT64 [1] → `y` FP32 [size] of zeros: the input sets the memory of a run."""
    return _model(
        "sizer",
        [helper.make_node("ConstantOfShape", ["size"], ["y"])],
        [_value("size", TensorProto.INT64, (1,))],
        [_value("y", TensorProto.FLOAT, ("n",))],
    )


def colours(height: int = 8, width: int = 8) -> bytes:
    """`image` UINT8 [batch, height, width, 3] → `probabilities` FP32 [batch, 3].

    How red, green and blue a picture is, in shares of its light.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["light"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["light", "places"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["sums", "last_axis"], ["total"], keepdims=1),
        helper.make_node("Max", ["total", "least"], ["divisor"]),
        helper.make_node("Div", ["sums", "divisor"], ["probabilities"]),
    ]
    return _model(
        "colours",
        nodes,
        [_value("image", TensorProto.UINT8, ("batch", height, width, 3))],
        [_value("probabilities", TensorProto.FLOAT, ("batch", 3))],
        [
            _constant("places", np.array([1, 2], np.int64)),
            _constant("last_axis", np.array([1], np.int64)),
            _constant("least", np.float32(1)),
        ],
    )


def pixels(height: int = 8, width: int = 8, channels: int = 3) -> bytes:
    """`image` UINT8 [batch, height, width, channels] → `values` FP32: its input, flat."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Cast", ["flat"], ["values"], to=TensorProto.FLOAT),
    ]
    return _model(
        "pixels",
        nodes,
        [_value("image", TensorProto.UINT8, ("batch", height, width, channels))],
        [_value("values", TensorProto.FLOAT, ("batch", height * width * channels))],
    )


def classifier(outputs: Sequence[str] = ("label", "probabilities")) -> bytes:
    """`x` FP32 [batch, 2] → `label` INT64 [batch], `probabilities` seq(map(int64, float)).

    As exporters of classical models write a classifier: ZipMap makes maps of its scores.
    """
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            classlabels_ints=[0, 1],
            coefficients=[1.0, 0.0, 0.0, 1.0],
            intercepts=[0.0, 0.0],
            post_transform="SOFTMAX",
        ),
        helper.make_node(
            "ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
        ),
    ]
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, value))
    values = {
        "label": _value("label", TensorProto.INT64, ("batch",)),
        "probabilities": helper.make_value_info("probabilities", maps),
    }
    return _model(
        "classifier",
        nodes,
        [_value("x", TensorProto.FLOAT, ("batch", 2))],
        [values[name] for name in outputs],
        domains=("ai.onnx.ml",),
    )


def without_tensors(kind: str) -> bytes:
    """A graph of no use to the protocol, by the type of its output or input.

    `sequence`: y = a sequence of x; `optional`: y = x; `sparse`: y = x, which is sparse.
    """
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2, 2])
    x = y = _value("x", TensorProto.FLOAT, (2, 2))
    match kind:
        case "sequence":
            node = helper.make_node("SequenceConstruct", ["x"], ["y"])
            y = helper.make_value_info("y", helper.make_sequence_type_proto(tensor))
        case "optional":
            node = helper.make_node("Identity", ["x"], ["y"])
            x, y = (
                helper.make_value_info(name, helper.make_optional_type_proto(tensor))
                for name in ("x", "y")
            )
        case _:
            node = helper.make_node(
                "SparseToDenseMatMul", ["x", "identity"], ["y"], domain="com.microsoft"
            )
            x = helper.make_value_info(
                "x", helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2, 2])
            )
            y = _value("y", TensorProto.FLOAT, (2, 2))
    return _model(
        "without_tensors",
        [node],
        [x],
        [y],
        [_constant("identity", np.eye(2, dtype=np.float32))],
        domains=("com.microsoft",),
    )


def densenet() -> bytes:
    """`data_0` FP32 [1, 3, 8, 8] → `fc6_1` FP32 [1, 5, 1, 1]: the forms of Triton's first model."""
    generator = np.random.default_rng(0)
    return _model(
        "densenet",
        [helper.make_node("Conv", ["data_0", "kernels"], ["fc6_1"])],
        [_value("data_0", TensorProto.FLOAT, (1, 3, 8, 8))],
        [_value("fc6_1", TensorProto.FLOAT, (1, 5, 1, 1))],
        [_constant("kernels", generator.standard_normal((5, 3, 8, 8)).astype(np.float32))],
    )


def recommender() -> bytes:
    """`user` and `item` INT64 [rows] → `score` FP32 [rows], of a table each."""
    generator = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["users", "user"], ["own"]),
        helper.make_node("Gather", ["items", "item"], ["other"]),
        helper.make_node("Sub", ["own", "other"], ["score"]),
    ]
    return _model(
        "recommender",
        nodes,
        [_value(name, TensorProto.INT64, ("rows",)) for name in ("user", "item")],
        [_value("score", TensorProto.FLOAT, ("rows",))],
        [
            _constant(name, generator.standard_normal(300).astype(np.float32))
            for name in ("users", "items")
        ],
    )


def product() -> bytes:
    """y = a @ b in FP32, all [None, None]: a name that some exporters give every axis."""
    a, b, y = (_value(name, TensorProto.FLOAT, ("None", "None")) for name in ("a", "b", "y"))
    return _model("product", [helper.make_node("MatMul", ["a", "b"], ["y"])], [a, b], [y])


def scaled(ir_version: int = _IR_VERSION) -> bytes:
    """y = x * scale, FP32 [batch, 3]; `scale` [3] is an input with an initializer, 2."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "scaled",
        [
            _value("x", TensorProto.FLOAT, ("batch", 3)),
            _value("scale", TensorProto.FLOAT, (3,)),
        ],
        [_value("y", TensorProto.FLOAT, ("batch", 3))],
        [_constant("scale", np.full(3, 2, np.float32))],
    )
    opset = helper.make_opsetid("", 8)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=ir_version)
    return model.SerializeToString()


def shifted() -> bytes:
    """y = x + by, FP32 [batch, 3]; `by` is a scalar input with an initializer, 1."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "by"], ["y"])],
        "shifted",
        [_value("x", TensorProto.FLOAT, ("batch", 3)), _value("by", TensorProto.FLOAT, ())],
        [_value("y", TensorProto.FLOAT, ("batch", 3))],
        [_constant("by", np.float32(1))],
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return model.SerializeToString()


def default_alone() -> bytes:
    """y = x FP32 [3], an input with an initializer, 2: a request may hold no tensor."""
    value = _value("x", TensorProto.FLOAT, (3,))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "default_alone",
        [value],
        [_value("y", TensorProto.FLOAT, (3,))],
        [_constant("x", np.full(3, 2, np.float32))],
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return model.SerializeToString()


def without_shapes() -> bytes:
    """y = x in FP32, of any shape: the graph has none for them."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "any", [x], [y])
    # The checker of `_model` wants shapes, which ONNX Runtime does not.
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return model.SerializeToString()


def output_without_shape() -> bytes:
    """y = x FP32 [batch, 3]; y has no shape, and none can be inferred."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Size", ["sizes"], ["rank"]),
        helper.make_node("Unsqueeze", ["rank", "zero"], ["end"]),
        helper.make_node("Slice", ["sizes", "zero", "end"], ["same_sizes"]),
        helper.make_node("Reshape", ["x", "same_sizes"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "output_without_shape",
        [_value("x", TensorProto.FLOAT, ("batch", 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [_constant("zero", np.array([0], np.int64))],
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return model.SerializeToString()


def write_plain(root: Path, name: str, model: bytes, version: int = 1) -> Path:
    """Put a model without a contract into the repository `root`; returns its version directory."""
    directory = root / name / str(version)
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(model)
    return directory


def _value(name: str, datatype: int, axes: Axes) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, datatype, axes)


def _constant(name: str, value: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def recorded(graph: bytes, rows: int = 2) -> Golden:
    """What ONNX Runtime makes of a few pictures of noise, for a graph that takes `image`."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    image = np.random.default_rng(0).integers(0, 256, (rows, *taken.shape[1:]), np.uint8)
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {taken.name: image})
    return Golden({taken.name: image}, dict(zip(names, outputs, strict=True)))


def _model(
    name: str,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Sequence[TensorProto] = (),
    *,
    domains: Sequence[str] = (),
) -> bytes:
    graph: GraphProto = helper.make_graph(nodes, name, inputs, outputs, constants)
    opsets = [helper.make_opsetid("", _OPSET), *(helper.make_opsetid(each, 1) for each in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
