import logging

import onnx
import pytest
from onnx import TensorProto

from tests.helpers import onnx_models
from weir.server.errors import ModelLoadError
from weir.server.repository import batch_axis, triton
from weir.server.repository.batch_axis import BatchAxis
from weir.server.runtime.session import Session
from weir.server.scheduling.batching import Basis, BatchDecision


def resolved(
    graph: bytes, *, setting: bool | None = None, config: str | None = None, max_rows: int = 32
) -> BatchAxis:
    """The batch axis of a plain model, which is logged."""
    axis = batch_axis.resolve(
        graph,
        Session(graph, provider="cpu", threads=1),
        None,
        None if config is None else triton.parse(config.encode(), "plain"),
        setting=setting,
        max_rows=max_rows,
    )
    batch_axis.log("plain", axis.decision)
    return axis


def parsed(text: str) -> bytes:
    """A graph in ONNX's textual syntax."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g {text}')
    return model.SerializeToString()


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(onnx_models.affine(), id="affine"),
        pytest.param(onnx_models.arithmetic(), id="two inputs"),
        pytest.param(onnx_models.fingerprint(1), id="a free axis"),
        pytest.param(onnx_models.gather(4), id="indices of a small table"),
        pytest.param(onnx_models.refuses_zero(), id="zeros are refused"),
        pytest.param(onnx_models.nan_passthrough(), id="one number a row"),
        pytest.param(onnx_models.colours(), id="pictures"),
        *(
            pytest.param(onnx_models.echo(datatype), id=TensorProto.DataType.Name(datatype))
            for datatype in (
                TensorProto.BOOL,
                TensorProto.UINT8,
                TensorProto.INT64,
                TensorProto.FLOAT16,
                TensorProto.DOUBLE,
                TensorProto.BFLOAT16,
                TensorProto.STRING,
            )
        ),
    ],
)
def test_honest_graph_is_proved(graph: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        axis = resolved(graph)

    assert axis.decision.is_batched
    assert axis.decision.basis is Basis.PROOF
    assert not axis.only_proved
    assert caplog.messages == ["batch axis proved model=plain"]


@pytest.mark.parametrize(
    ("graph", "basis", "expected"),
    [
        pytest.param(
            onnx_models.detector(),
            Basis.FORM,
            "shapes depend on values, by operators 'NonZero'",
            id="form",
        ),
        pytest.param(
            onnx_models.scattered(),
            Basis.FORM,
            "shapes depend on values, by operators 'NonZero'",
            id="inside",
        ),
        pytest.param(
            onnx_models.softmax_of_batch(),
            Basis.RUN,
            "a row of output 'y' depends on the other rows of its batch",
            id="mixed rows",
        ),
        pytest.param(
            parsed("(float[n, 2] x) => (float[n, 2] y) { s = Softmax (x) y = Sign (s) }"),
            Basis.RUN,
            "all generated rows have the same outputs, which proves nothing",
            id="ones for all rows",
        ),
        pytest.param(
            onnx_models.first_rows(1),
            Basis.RUN,
            "output 'y': expected 2 rows, got 1",
            id="lost rows",
        ),
        pytest.param(
            onnx_models.at_most(1),
            Basis.RUN,
            "rows that run alone do not run together",
            id="refused together",
        ),
        pytest.param(
            onnx_models.echo(TensorProto.FLOAT, ("batch", 1 << 25)),
            Basis.RUN,
            "the graph runs on no two of the generated rows",
            id="too large to try",
        ),
    ],
)
def test_other_graph_is_not_batched_and_the_log_says_why(
    graph: bytes, basis: Basis, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        axis = resolved(graph)

    assert axis.decision == BatchDecision(is_batched=False, basis=basis, reason=expected)
    assert axis.tensors.batch_axis is None
    assert caplog.messages == [f"model is not batched model=plain reason={expected}"]
    assert caplog.records[0].levelno == logging.WARNING


def of_rows(nodes: str) -> bytes:
    """A graph x → y, FP32 [s77, 4]."""
    return parsed(f"(float[s77, 4] x) => (float[s77, 4] y) {{ {nodes} }}")


AXES = "first = Constant<value_ints = [0]> () last = Constant<value_ints = [1]> ()"


def scaled_if(reduction: str, comparison: str, threshold: float) -> bytes:
    """x, and a 255th of it if the greatest or the least number of the whole batch says so."""
    return of_rows(f"""{AXES}
        limit = Constant<value_float = {threshold:f}> () share = Constant<value_float = 0.0039> ()
        most = {reduction} (x, first)  is_beyond = {comparison} (most, limit)
        small = Mul (x, share)  y = Where (is_beyond, small, x)""")


def scaled_integers_if(datatype: str, threshold: float) -> bytes:
    """Integers as FP32, and a 255th of them if the greatest of the whole batch is so large."""
    return parsed(f"""({datatype}[s77, 4] x) => (float[s77, 4] y) {{ {AXES}
        limit = Constant<value_float = {threshold:f}> () share = Constant<value_float = 0.0039> ()
        f = Cast<to = 1> (x)  most = ReduceMax (f, first)  is_beyond = GreaterOrEqual (most, limit)
        small = Mul (f, share)  y = Where (is_beyond, small, f) }}""")


def delayed(rows: int) -> bytes:
    """Each row less the row so many before it."""
    return of_rows(f"""{AXES}
        pads = Constant<value_ints = [{rows}, 0, 0, 0]> () end = Constant<value_ints = [-{rows}]> ()
        padded = Pad (x, pads)  before = Slice (padded, first, end, first)  y = Sub (x, before)""")


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(of_rows("y = Softmax<axis = 1> (x)"), id="softmax of a row"),
        pytest.param(
            of_rows(f"{AXES} axis = Squeeze (last) y = CumSum (x, axis)"), id="sum of a row"
        ),
        pytest.param(of_rows("e = Exp (x) z = Log (x) y = Add (e, z)"), id="inf and NaN by itself"),
        pytest.param(
            parsed("(float[unk__6, 2] x) => (float[unk__7, 2] y) { y = Relu (x) }"), id="tf2onnx"
        ),
        pytest.param(
            parsed("""(float["p2o.DynamicDimension.0", 2] x)
                => (float["p2o.DynamicDimension.1", 2] y) { y = Relu (x) }"""),
            id="Paddle2ONNX",
        ),
        pytest.param(
            parsed("(float[batch, 2] x) => (float[Reluy_dim_0, 2] y) { y = Relu (x) }"),
            id="dynamic_axes of the input alone",
        ),
        pytest.param(
            parsed(
                """(float[x_dynamic_axes_1, 2] x, float[z_dynamic_axes_1, 2] z)
                => (float[Addy_dim_0, 2] y) { y = Add (x, z) }"""
            ),
            id="dynamic_axes without names",
        ),
        pytest.param(
            parsed(
                """(float[s77, s53] x) => (float[s77, "2*s53"] y) { y = Concat<axis = 1> (x, x) }"""
            ),
            id="Dim.DYNAMIC of torch",
        ),
        pytest.param(onnx_models.echo(axes=(None, 3)), id="no name"),
        pytest.param(onnx_models.echo(axes=("?", 3)), id="?"),
        pytest.param(onnx_models.echo(axes=("None", 3)), id="None"),
    ],
)
def test_name_of_the_axis_plays_no_part(graph: bytes) -> None:
    axis = resolved(graph)

    assert axis.decision.basis is Basis.PROOF, axis.decision.reason
    assert axis.only_proved


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(of_rows("y = Softmax<axis = 0> (x)"), id="softmax"),
        pytest.param(
            of_rows("axis = Constant<value_int = 0> () y = CumSum (x, axis)"), id="sum so far"
        ),
        pytest.param(
            of_rows("axis = Constant<value_int = 0> () y = CumSum<reverse = 1> (x, axis)"),
            id="sum from here",
        ),
        pytest.param(
            of_rows("""n = Shape<start = 0, end = 1> (x)  y, i = TopK<axis = 0> (x, n)"""),
            id="sorted rows",
        ),
        pytest.param(
            of_rows("""one = Constant<value_floats = [1.0, 1.0, 1.0, 1.0]> ()
                zero = Constant<value_floats = [0.0, 0.0, 0.0, 0.0]> ()
                y, m, v = BatchNormalization<training_mode = 1> (x, one, zero, zero, one)"""),
            id="batch normalisation in training",
        ),
        pytest.param(
            of_rows("q, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (q, s, z)"),
            id="INT8 ranges of the whole batch",
        ),
        *(
            pytest.param(
                of_rows(f"""at = Constant<value_ints = [{place}]> ()
                    tiny = Constant<value_float = 1e-5> ()
                    one = Gather (x, at)  part = Mul (one, tiny)  y = Sub (x, part)"""),
                id=f"a little of row {place}",
            )
            for place in (0, -1)
        ),
        *(pytest.param(delayed(rows), id=f"{rows} rows before") for rows in (1, 2, 3, 7, 31)),
        pytest.param(
            parsed("""(float[n, 4] x, float[n, 4] z) => (float[n, 4] y) {
                t = Transpose<perm = [1, 0]> (z)  s = MatMul (x, t)  p = Softmax<axis = 1> (s)
                y = MatMul (p, z) }"""),
            id="attention over the rows",
        ),
        pytest.param(
            parsed("""(float[n, 4] x, int64[n] i) => (float[n, 4] y) { y = Gather (x, i) }"""),
            id="rows by index",
        ),
    ],
)
def test_graph_that_mixes_rows_is_not_batched(graph: bytes) -> None:
    decision = resolved(graph).decision

    assert not decision.is_batched
    assert decision.basis is Basis.RUN
    assert "depends on the other rows of its batch" in decision.reason


REDUCTIONS = [
    pytest.param(
        of_rows(f"""{AXES} tiny = Constant<value_float = 1e-9> ()
                mean = ReduceMean (x, first)  part = Mul (mean, tiny)  y = Add (x, part)"""),
        id="below the tolerance",
    ),
    pytest.param(scaled_if("ReduceMax", "Greater", 1.0), id="if a pixel is above 1"),
    pytest.param(scaled_if("ReduceMax", "Greater", 1e6), id="if a number is above a million"),
    pytest.param(scaled_if("ReduceMin", "Less", 0.0), id="if a number is negative"),
    pytest.param(scaled_if("ReduceMin", "Less", -1e6), id="if one is below minus a million"),
    pytest.param(
        of_rows(f"""{AXES} i = IsInf (x)  f = Cast<to = 1> (i)
                row = ReduceMax (f, last)  all = ReduceMax (row, first)  y = Add (x, all)"""),
        id="if a number is infinite",
    ),
    pytest.param(scaled_integers_if("uint8", 2.0), id="if a pixel is no 0 or 1"),
    pytest.param(scaled_integers_if("int32", 2.0), id="if an integer is above 1"),
    pytest.param(scaled_integers_if("int64", 500.0), id="if an integer is 500 or more"),
    pytest.param(
        parsed(f"""(bool[n, 8] x) => (float[n, 8] y) {{ {AXES}
                f = Cast<to = 1> (x)  least = ReduceMin (f, first)  all = ReduceMin (least, last)
                y = Add (f, all) }}"""),
        id="if all are true",
    ),
    pytest.param(
        parsed("""(int64[s77, 4] x) => (float[s77, 2] y)
                <float[4, 2] table = {0, 1, 2, 3, 4, 5, 6, 7}>
                {
                    first = Constant<value_ints = [0]> () last = Constant<value_ints = [1]> ()
                    tiny = Constant<value_float = 1e-5> ()
                    e = Gather (table, x)  own = ReduceMean<keepdims = 0> (e, last)
                    all = ReduceMean (own, first)  part = Mul (all, tiny)  y = Add (own, part)
                }"""),
        id="ids below the tolerance",
    ),
]


@pytest.mark.parametrize("graph", REDUCTIONS)
def test_reduction_along_the_batch_is_not_batched(graph: bytes) -> None:
    decision = resolved(graph).decision

    assert decision.basis is Basis.FORM
    assert decision.reason.startswith("all rows are reduced to one, by ")


@pytest.mark.parametrize("graph", REDUCTIONS)
def test_reduction_along_a_configured_batch_is_found_by_running(graph: bytes) -> None:
    decision = resolved(graph, config="max_batch_size: 32").decision

    assert decision.basis is Basis.RUN
    assert "depends on the other rows of its batch" in decision.reason


def if_within(reduction: str) -> bytes:
    """-x, and x if a number between 5 and 6 is made of the whole batch."""
    return of_rows(f"""{AXES} low = Constant<value_float = 5.0> ()
        high = Constant<value_float = 6.0> ()  {reduction}
        is_above = Greater (most, low)  is_below = Less (most, high)
        is_between = And (is_above, is_below)  n = Neg (x)  y = Where (is_between, n, x)""")


def if_any_is(number: int, datatype: str) -> bytes:
    """Integers, and zeros if any in the batch is the number."""
    return parsed(f"""({datatype}[n, 4] x) => ({datatype}[n, 4] y)
        <{datatype} number = {{{number}}}, int64[2] axes = {{0, 1}}> {{
        is_it = Equal (x, number)  f = Cast<to = 1> (is_it)  any = ReduceMax (f, axes)
        has_it = Cast<to = 9> (any)  zeros = Sub (x, x)  y = Where (has_it, zeros, x) }}""")


@pytest.mark.parametrize(
    ("graph", "operator"),
    [
        pytest.param(if_within("most = ReduceMax<keepdims = 0> (x)"), "ReduceMax", id="all axes"),
        pytest.param(if_within("most = ReduceMax (x, first)"), "ReduceMax", id="first axis"),
        pytest.param(
            if_within("minus = Constant<value_ints = [-2]> () most = ReduceMax (x, minus)"),
            "ReduceMax",
            id="first axis, counted from the last",
        ),
        pytest.param(
            if_within("""p = Transpose<perm = [1, 0]> (x)  t = ReduceMax (p, last)
                most = Transpose<perm = [1, 0]> (t)"""),
            "ReduceMax",
            id="transposed",
        ),
        pytest.param(
            if_within("a = ArgMax<axis = 0> (x)  most = Cast<to = 1> (a)"),
            "ArgMax",
            id="place of the greatest",
        ),
        pytest.param(if_any_is(7, "int32"), "ReduceMax", id="if any integer is 7"),
        pytest.param(if_any_is(128, "uint8"), "ReduceMax", id="if any pixel is 128"),
    ],
)
def test_reduction_along_the_batch_is_not_batched_whatever_it_is_compared_with(
    graph: bytes, operator: str
) -> None:
    decision = resolved(graph).decision

    assert decision.basis is Basis.FORM
    assert decision.reason.startswith(f"all rows are reduced to one, by '{operator}'")


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(
            parsed(f"""(float[n, 5, 4] x) => (float[n, 4] y) {{ {AXES}
                t = Transpose<perm = [1, 0, 2]> (x)  e = Exp (t)
                y = ReduceMax<keepdims = 0> (e, first) }}"""),
            id="time first",
        ),
        pytest.param(
            parsed(f"""(float[n, 4] x) => (float[n, 4] y) {{ {AXES}
                a = Exp (x)  b = Neg (x)  c = Unsqueeze (a, first)  d = Unsqueeze (b, first)
                s = Concat<axis = 0> (c, d)  y = ReduceMean<keepdims = 0> (s, first) }}"""),
            id="stacked in front",
        ),
        pytest.param(
            parsed(f"""(float[n, 4] x) => (float[n, 4] y) <int64[3] shape = {{1, -1, 4}}> {{ {AXES}
                a = Exp (x)  b = Neg (x)  c = Reshape (a, shape)  d = Reshape (b, shape)
                s = Concat<axis = 0> (c, d)  y = ReduceMean<keepdims = 0> (s, first) }}"""),
            id="ensemble",
        ),
        pytest.param(
            of_rows("""first = Constant<value_ints = [0]> ()
                shape = Shape<start = 1> (x)  size = ReduceProd (shape, first)
                f = Cast<to = 1> (size)  y = Mul (x, f)"""),
            id="of sizes",
        ),
    ],
)
def test_reduction_along_another_axis_than_the_batch_is_batched(graph: bytes) -> None:
    decision = resolved(graph).decision

    assert decision.is_batched, decision.reason


@pytest.mark.parametrize("block", [2, 3, 4, 8])
def test_rows_that_make_up_for_missing_entries_are_not_batched(block: int) -> None:
    graph = parsed(f"""(float[n, width] x) => (float[n, width] y) {{
        blocks = Constant<value_ints = [-1, {block}]> ()
        b = Reshape (x, blocks)  s = Softmax<axis = 1> (b)  shape = Shape (x)
        y = Reshape (s, shape) }}""")

    decision = resolved(graph).decision

    assert decision.basis is Basis.RUN
    assert decision.reason == "rows that do not run alone run together"


def test_large_integers_that_a_graph_refuses_prove_nothing() -> None:
    graph = parsed("""(int64[n, time] ids, int64[n, time] mask) => (float[n, time, 2] y)
        <float[4, 2] table = {0, 1, 2, 3, 4, 5, 6, 7}, int64[1] last = {2}>
        {
            e = Gather (table, ids)  m = Cast<to = 1> (mask)  u = Unsqueeze (m, last)
            y = Mul (e, u)
        }""")

    assert resolved(graph).decision.is_batched


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        pytest.param(
            parsed("""(float[src_len, 4] x, float[batch, 4] z) => (float[batch, 4] y)
                { y = Add (x, z) }"""),
            "the first axes have different names: 'batch', 'src_len'",
            id="names that mean different things",
        ),
        pytest.param(
            parsed("(float[s77, s77] x) => (float[s77, s77] y) { y = Relu (x) }"),
            "'x' has the size of its first axis on another axis too",
            id="square",
        ),
        pytest.param(
            parsed("(float[n, 4] x) => (float[n, 4] y, int64[2] s) { y = Relu (x) s = Shape (x) }"),
            "output 's' [2] has no first axis of any size",
            id="an output of one size",
        ),
        pytest.param(
            onnx_models.without_rows(), "output 'y' [] has no first axis of any size", id="scalar"
        ),
    ],
)
def test_graph_without_a_candidate_says_why(
    graph: bytes, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        axis = resolved(graph)

    assert axis.decision == BatchDecision(is_batched=False, basis=Basis.NO_AXIS, reason=expected)
    assert caplog.messages == [f"model is not batched model=plain reason={expected}"]
    assert caplog.records[0].levelno == logging.INFO


def test_one_row_of_an_output_may_be_that_of_the_exporters_example() -> None:
    axis = resolved(parsed("(float[n, 4] x) => (float[1, 4] y) { y = Relu (x) }"))

    assert axis.decision.is_batched and axis.only_proved
    assert [spec.axes for spec in axis.tensors.outputs] == [(None, 4)]


def test_output_of_one_size_is_found_by_running() -> None:
    axis = resolved(
        parsed(f"""(float[n] x) => (float[n] y, float[1] s)
            {{ {AXES} y = Relu (x) s = Slice (x, first, last) }}""")
    )

    assert axis.decision == BatchDecision(
        is_batched=False, basis=Basis.RUN, reason="output 's': expected 2 rows, got 1"
    )
    assert [spec.axes for spec in axis.tensors.outputs] == [("n",), (1,)]


def test_setting_replaces_the_proofs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        axis = resolved(onnx_models.doubled_above(1e6), setting=True)

    assert axis.decision.is_batched
    assert axis.decision.basis is Basis.SETTING
    assert not axis.only_proved
    assert {spec.axes[0] for spec in (*axis.tensors.inputs, *axis.tensors.outputs)} == {"batch"}
    assert caplog.messages == ["model is batched model=plain reason=the setting batch_axis is true"]


@pytest.mark.parametrize("config", [None, "max_batch_size: 8"])
def test_setting_forbids_batches(config: str | None) -> None:
    axis = resolved(onnx_models.affine(), setting=False, config=config)

    assert not axis.decision.is_batched
    assert axis.decision.basis is Basis.SETTING
    # The file's limits hold for single requests.
    assert (axis.tensors.batch_axis is None) is (config is None)


@pytest.mark.parametrize("config", [None, "max_batch_size: 8", "max_batch_size: 0"])
def test_setting_needs_a_first_axis_of_any_size(config: str | None) -> None:
    graph = onnx_models.without_rows()

    with pytest.raises(ModelLoadError, match=r"batch_axis = true: expected .* output 'y' \[\]"):
        resolved(graph, setting=True, config=config)


def test_config_without_batches_is_not_batched_but_by_the_setting() -> None:
    decision = resolved(onnx_models.affine(), config="max_batch_size: 0").decision

    assert (decision.basis, decision.reason) == (
        Basis.NO_AXIS,
        "max_batch_size of config.pbtxt is 0",
    )
    assert resolved(
        onnx_models.affine(), config="max_batch_size: 0", setting=True
    ).decision.is_batched


def test_max_rows_of_one_is_not_batched() -> None:
    axis = resolved(onnx_models.affine(), max_rows=1)

    assert axis.decision.basis is Basis.SETTING
    assert axis.tensors.batch_axis == "batch"
