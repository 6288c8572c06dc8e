import hashlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.helpers import profiled_graphs
from tests.unit.export.onnx_import import graphs
from weir.bundle.contract import Contract
from weir.bundle.errors import InvalidName, VersionExists
from weir.bundle.reader import Bundle, read
from weir.bundle.sequences import ValueRange
from weir.export import large_graph
from weir.export.errors import AccuracyError, BrokenGraph, ExportError, ParityError
from weir.export.onnx_import.publishing import Imported, import_onnx
from weir.export.onnx_import.spec import ImportSpec, Int8, Pictures

ROWS = np.random.default_rng(5).normal(size=(7, 4)).astype(np.float32)


def imported(file: Path, **spec: Any) -> tuple[Imported, Bundle]:
    published = import_onnx(file, ImportSpec(**spec), to=file.parent / "models")
    return published, read(published.path)


def write_tokenizer(folder: Path, *words: str) -> Path:
    """A tokenizer.json of these words and an unknown one."""
    vocabulary = {"[UNK]": 0} | {word: number for number, word in enumerate(words, 1)}
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


def run(model: bytes, **inputs: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def axes_of(model: bytes) -> dict[str, list[str | int]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}


def test_file_becomes_a_bundle_with_its_source(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.SCALE)

    published, bundle = imported(file, command="weir import net.onnx --to models")

    assert published.path == tmp_path / "models" / "net" / "1"
    contract = bundle.contract
    assert (contract.task, contract.batch_axis, contract.precision) == ("other", "batch", "fp32")
    assert (
        contract.parity is not None and "imported file in ONNX Runtime" in contract.parity.against
    )
    source = contract.source
    assert source is not None
    assert source.files == {"net.onnx": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert (source.producer, source.opsets) == ("other", {"ai.onnx": 17, "ai.onnx.ml": 1})
    assert source.command == "weir import net.onnx --to models"
    assert "torch" not in contract.versions
    np.testing.assert_array_equal(run(bundle.model, x=ROWS)["y"], 2 * ROWS)


def test_golden_outputs_are_those_of_the_inputs(tmp_path: Path) -> None:
    _, bundle = imported(graphs.write(tmp_path, graphs.SCALE))

    golden = bundle.golden()

    assert golden is not None and golden.inputs["x"].shape == (4, 4)
    np.testing.assert_array_equal(golden.outputs["y"], 2 * golden.inputs["x"])


def test_same_file_gives_the_same_bundle(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.SCALE)

    first, second = (imported(file)[1].files for _ in range(2))

    assert first == second


@pytest.mark.parametrize("axis", ["N", "?", "None", "s77", "unk__6", "batch_size"])
def test_batch_axis_of_any_name_is_found(tmp_path: Path, axis: str) -> None:
    model = graphs.model(graphs.SCALE)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = axis
    file = tmp_path / "net.onnx"
    onnx.save(model, file)

    _, bundle = imported(file)

    assert axes_of(bundle.model) == {"x": ["batch", 4], "y": ["batch", 4]}


def test_axis_that_lies_is_no_batch_axis(tmp_path: Path) -> None:
    published, bundle = imported(graphs.write(tmp_path, graphs.CENTRE))

    assert bundle.contract.batch_axis is None
    assert any(
        "not batched" in line and "all rows are reduced to one, by ReduceMean" in line
        for line in published.remarks
    )


def test_thresholds_far_from_one_are_reached(tmp_path: Path) -> None:
    text = """g (float[N, 4] income) => (int64[N, 4] is_high) <float limit = {50000.0}> {
      high = Greater(income, limit)
      is_high = Cast <to = 7> (high) }"""

    _, bundle = imported(graphs.write(tmp_path, text))

    golden = bundle.golden()
    assert bundle.contract.batch_axis == "batch"
    assert golden is not None and np.abs(golden.inputs["income"]).max() > 50_000


@pytest.mark.parametrize("rows", ["2", "N"])
def test_output_without_axes_is_not_batched(tmp_path: Path, rows: str) -> None:
    text = f"g (float[{rows}, 4] x) => (float y) {{ y = ReduceSum <keepdims = 0> (x) }}"

    _, bundle = imported(graphs.write(tmp_path, text))

    assert bundle.contract.batch_axis is None
    assert axes_of(bundle.model)["y"] == []


def test_rows_that_are_all_the_same_prove_nothing(tmp_path: Path) -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) <float zero = {0.0}> {
      positive = Abs(x)
      y = Min(positive, zero) }"""

    published, bundle = imported(graphs.write(tmp_path, text))

    assert bundle.contract.batch_axis is None
    assert any("have the same outputs" in line for line in published.remarks)


@pytest.mark.parametrize("factor", ["0.0", "1e-9", "1e-30"])
def test_row_that_only_nan_or_large_numbers_change_is_not_batched(
    tmp_path: Path, factor: str
) -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) <float factor = {FACTOR}> {
      all = ReduceMean <axes = [0], keepdims = 1> (x)
      little = Mul(all, factor)
      y = Add(x, little) }""".replace("FACTOR", factor)

    with pytest.raises(ParityError, match="if the row beside it holds"):
        imported(graphs.write(tmp_path, text), is_batched=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            """g (uint8[N, 4] x) => (float[N, 4] y) <float one = {1}, float share = {0.0039}> {
              f = Cast <to = 1> (x)  most = ReduceMax <axes = [0], keepdims = 1> (f)
              is_byte = Greater(most, one)  small = Mul(f, share)
              y = Where(is_byte, small, f) }""",
            "holds 200",
            id="if a pixel is above 1",
        ),
        pytest.param(
            """g (int64[N, 4] x) => (int64[N, 4] y) <int64 limit = {500}, int64 seven = {7}> {
              most = ReduceMax <axes = [0], keepdims = 1> (x)
              is_large = Greater(most, limit)  part = Div(x, seven)
              y = Where(is_large, part, x) }""",
            "holds 1000",
            id="if an integer is above 500",
        ),
        pytest.param(
            """g (float[N, 4] x) => (float[N, 4] y) <float limit = {-100}, float share = {0.5}> {
              least = ReduceMin <axes = [0], keepdims = 1> (x)
              is_low = Less(least, limit)  small = Mul(x, share)  y = Where(is_low, small, x) }""",
            "holds -1e+30",
            id="if a number is below -100",
        ),
    ],
)
def test_reduction_along_the_batch_is_refused_if_a_batch_axis_is_asked_for(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(ParityError, match=re.escape(reason)):
        imported(graphs.write(tmp_path, text), is_batched=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            """g (float[N, 4] x) => (float[N, 4] y)
            <int64[4] pads = {5, 0, 0, 0}, int64[1] first = {0}, int64[1] end = {-5}> {
              padded = Pad(x, pads)  before = Slice(padded, first, end, first)
              y = Add(x, before) }""",
            "row 5 of a batch is not what it is alone",
            id="5 rows before",
        ),
        pytest.param(
            """g (float[N, width] x) => (float[N, width] y) <int64[2] blocks = {-1, 8}> {
              b = Reshape(x, blocks)  s = Softmax <axis = 1> (b)  shape = Shape(x)
              y = Reshape(s, shape) }""",
            "a row of shape [1, 4] changes in a batch of 2, or does not run alone",
            id="blocks of 8 entries",
        ),
        pytest.param(
            """g (float[N, 4] x) => (float[N, 4] y) <float low = {5}, float high = {6}> {
              most = ReduceMax <keepdims = 0> (x)  is_above = Greater(most, low)
              is_below = Less(most, high)  both = And(is_above, is_below)  n = Neg(x)
              y = Where(both, n, x) }""",
            "all rows are reduced to one, by ReduceMax",
            id="a number of all rows",
        ),
        pytest.param(
            """g (int32[N, 4] x) => (int32[N, 4] y) <int32 seven = {7}> {
              is_it = Equal(x, seven)  f = Cast <to = 1> (is_it)
              any = ReduceMax <axes = [0, 1], keepdims = 1> (f)  has_it = Cast <to = 9> (any)
              zeros = Sub(x, x)  y = Where(has_it, zeros, x) }""",
            "all rows are reduced to one, by ReduceMax",
            id="if any integer is 7",
        ),
    ],
)
def test_rows_that_depend_on_few_values_are_not_batched(
    tmp_path: Path, text: str, reason: str
) -> None:
    published, bundle = imported(graphs.write(tmp_path, text))

    assert bundle.contract.batch_axis is None
    assert any("not batched" in line and reason in line for line in published.remarks)


def test_axis_that_lies_is_refused_if_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="row 0 of a batch is not what it is alone"):
        imported(graphs.write(tmp_path, graphs.CENTRE), is_batched=True)

    assert not (tmp_path / "models").exists()


def test_batch_of_one_is_imported_without_batches(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.SCALE.replace("N", "1"))

    published, bundle = imported(file)

    assert bundle.contract.batch_axis is None
    assert axes_of(bundle.model) == {"x": [1, 4], "y": [1, 4]}
    assert any("fixed at 1" in line for line in published.remarks)


def test_batch_of_one_is_freed_if_it_is_asked_for(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.SCALE.replace("N", "1"))

    _, bundle = imported(file, is_batched=True)

    assert axes_of(bundle.model) == {"x": ["batch", 4], "y": ["batch", 4]}
    np.testing.assert_array_equal(run(bundle.model, x=ROWS)["y"], 2 * ROWS)


def test_batch_of_one_that_reshapes_fix_is_not_freed(tmp_path: Path) -> None:
    text = """g (float[1, 4] x) => (float[1, 4] y) <int64[2] shape = {1, 4}> {
      y = Reshape(x, shape) }"""

    with pytest.raises(ParityError) as caught:
        imported(graphs.write(tmp_path, text), is_batched=True)

    assert str(caught.value) == (
        "the file fixes its batch at 1, also inside the graph (rows do not run together): "
        "export it with a free batch axis"
    )


def test_batch_of_one_that_merges_rows_is_not_freed(tmp_path: Path) -> None:
    text = """g (float[1, 4] x) => (float[1, 4] y) <int64[2] shape = {1, -1}> {
      y = Reshape(x, shape) }"""

    with pytest.raises(ParityError, match=r"the file fixes its batch at 1.*got \(1, 8\)"):
        imported(graphs.write(tmp_path, text), is_batched=True)


@pytest.mark.parametrize(
    ("axis", "spec", "message"),
    [
        ("1", {"is_batched": True}, "the file fixes its batch at 1, also inside the graph"),
        ("8", {"is_batched": True}, r"input x float32 \[8, 4\]: its first axis is not free"),
        ("1", {"is_batched": False, "time_axes": {"x": 1}}, "the file fixes its batch at 1"),
    ],
    ids=["one", "eight", "no-batch"],
)
def test_file_of_torch_with_a_fixed_batch_is_to_be_exported_anew(
    tmp_path: Path, axis: str, spec: dict[str, Any], message: str
) -> None:
    text = f"""g (float[{axis}, {"T" if "time_axes" in spec else 4}] x) => (float[{axis}, 4] y)
      <int64[2] shape = {{{axis}, 4}}> {{ y = Reshape(x, shape) }}"""
    file = graphs.write(tmp_path, text, header=graphs.HEADER.replace("other", "pytorch"))

    with pytest.raises(ExportError, match=message) as caught:
        imported(file, **spec)

    advice = "torch.onnx.export(..., dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}])"
    assert str(caught.value).endswith(f"export it with a free batch axis, {advice}")


def test_rows_of_unequal_length_need_a_batch(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"expected a batch axis for pictures.*leave out"):
        imported(graphs.write(tmp_path, graphs.MASKED_SUM), lengths="lengths", is_batched=False)


def test_rows_of_unequal_length_share_a_batch(tmp_path: Path) -> None:
    published, bundle = imported(
        graphs.write(tmp_path, graphs.MASKED_SUM), lengths="lengths", maximum=40
    )

    assert axes_of(bundle.model) == {
        "frames": ["batch", "time"],
        "lengths": ["batch"],
        "total": ["batch"],
        "own": ["batch", "time"],
    }
    padded = bundle.contract.padded_axes["time"]
    assert (padded.maximum, padded.lengths, padded.padding) == (40, "lengths", {"frames": 0})
    assert "padding changes no row" in published.checks
    golden = bundle.golden()
    assert golden is not None
    assert golden.inputs["lengths"].tolist() == sorted(golden.inputs["lengths"], reverse=True)


def test_padding_that_changes_a_row_closes_the_gate(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"row \d of length \d+ of a batch is not what it is"):
        imported(graphs.write(tmp_path, graphs.PLAIN_MEAN), lengths="lengths")


def test_padding_itself_may_mark_the_end(tmp_path: Path) -> None:
    text = "g (float[N, T] x) => (float[N] y) { y = ReduceSum <keepdims = 0> (x, at) }".replace(
        "{ y", "<int64[1] at = {1}> { y"
    )

    _, bundle = imported(graphs.write(tmp_path, text), time_axes={"x": 1})

    assert bundle.contract.padded_axes["time"].lengths is None


def test_mask_tells_the_length(tmp_path: Path) -> None:
    published, bundle = imported(graphs.write(tmp_path, graphs.PLACES), mask="attention_mask")

    padded = bundle.contract.padded_axes["time"]
    assert padded.mask == "attention_mask"
    assert padded.padding == {"input_ids": 0, "attention_mask": 0}
    golden = bundle.golden()
    assert golden is not None
    mask = golden.inputs["attention_mask"]
    assert (np.diff(mask, axis=1) <= 0).all() and len(set(mask.sum(axis=1).tolist())) > 1
    assert "padding changes no row" in published.checks


def test_rows_are_as_long_as_the_graph_takes(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.PLACES)

    published, bundle = imported(file, mask="attention_mask")

    assert bundle.contract.padded_axes["time"].maximum == 4
    assert "a row has at most 4 entries (--max-length)" in published.remarks
    with pytest.raises(ExportError, match=r"max length: expected rows of 6 entries to run"):
        imported(file, mask="attention_mask", maximum=6)


def test_classifier_of_texts_is_imported(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.PLACES)
    tokenizer = write_tokenizer(tmp_path, "a", "b")

    _, bundle = imported(file, tokenizer=tokenizer, labels={"": ["yes", "no"]}, maximum=5)

    contract = bundle.contract
    assert contract.task == "sequence-classification"
    assert contract.tokenisation is not None
    assert contract.tokenisation.rule == "tokenizer-json"
    assert contract.tokenisation.tokens == "input_ids"
    assert contract.padded_axes["time"].mask == "attention_mask"
    assert bundle.files["tokenizer.json"] == tokenizer.read_bytes()


def test_probabilities_of_texts_are_named_so_that_no_softmax_follows(tmp_path: Path) -> None:
    text = graphs.PLACES.replace("float[N, 2] logits)", "float[N, 2] shares)").replace(
        "  logits = ReduceSum <keepdims = 0> (own, last)",
        "  sums = ReduceSum <keepdims = 0> (own, last)\n  shares = Softmax(sums)",
    )
    labels = {"": ["yes", "no"]}

    published, bundle = imported(
        graphs.write(tmp_path, text), tokenizer=write_tokenizer(tmp_path, "a"), labels=labels
    )

    assert "output shares is also named probabilities, as its rows add up to 1" in published.remarks
    assert bundle.labels("probabilities") == ["yes", "no"]
    row = {"input_ids": np.array([[1, 3]]), "attention_mask": np.array([[1, 1]])}
    outputs = run(bundle.model, **row)
    assert outputs["probabilities"].tolist() == outputs["shares"].tolist()


def test_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path, *"abcdef")

    with pytest.raises(ExportError, match=r"tokenizer: expected ids up to 3, .* got 6"):
        imported(graphs.write(tmp_path, graphs.PLACES), tokenizer=tokenizer)


def test_tokenizer_needs_inputs_of_texts(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.MASKED_SUM)

    with pytest.raises(ExportError, match=r"tokenizer: .* got \['frames', 'lengths'\]"):
        imported(file, tokenizer=write_tokenizer(tmp_path, "a"))


def test_ids_of_a_table_have_its_range(tmp_path: Path) -> None:
    published, bundle = imported(graphs.write(tmp_path, graphs.EMBEDDING))

    assert bundle.contract.value_ranges == {"ids": ValueRange(minimum=0, maximum=2)}
    assert "input ids: values 0 to 2, as its table has" in published.remarks


def test_range_of_floats_is_for_the_examples_only(tmp_path: Path) -> None:
    _, bundle = imported(graphs.write(tmp_path, graphs.SCALE), ranges={"x": (8.0, 9.0)})

    golden = bundle.golden()
    assert golden is not None and 8 <= golden.inputs["x"].min() <= golden.inputs["x"].max() <= 9
    assert bundle.contract.value_ranges == {}


def test_zip_map_is_cut_off(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.ZIP_MAP)
    rows = ROWS[:, :3]

    published, bundle = imported(file)

    assert bundle.labels("probabilities") == ["cat", "dog", "owl"]
    assert axes_of(bundle.model)["probabilities"] == ["batch", 3]
    assert published.remarks[0].startswith("ZipMap is cut off: output scores is the tensor")
    (maps,) = run(file.read_bytes(), x=rows).values()
    own = run(bundle.model, x=rows)["probabilities"]
    assert [dict(zip(["cat", "dog", "owl"], row.tolist(), strict=True)) for row in own] == maps


AS_IT_IS = "; `weir serve` serves the file as it is"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "g (float[N, 4] x) => (bfloat16[N, 4] y) { y = Cast <to = 16> (x) }",
            f"output 'y': expected a type that recorded outputs can hold, got BFLOAT16{AS_IT_IS}",
        ),
        (
            "g (bfloat16[N, 4] x) => (float[N, 4] y) { y = Cast <to = 1> (x) }",
            f"input 'x': expected a type that recorded inputs can hold, got BFLOAT16{AS_IT_IS}",
        ),
        (
            "g (float[N, 4] x) => (float8e4m3fn[N, 4] y) { y = Cast <to = 17> (x) }",
            "output 'y': expected a type that recorded outputs can hold, got FLOAT8E4M3FN",
        ),
        (
            "g (float[N, 4] x) => (seq(float[N, 4]) y) { y = SequenceConstruct(x) }",
            "output 'y': expected a tensor, got sequence",
        ),
    ],
    ids=["bf16-output", "bf16-input", "float8", "sequence"],
)
def test_tensor_that_numpy_does_not_hold_is_named(tmp_path: Path, text: str, message: str) -> None:
    header = '<ir_version: 9, opset_import: ["" : 19]>'

    with pytest.raises(BrokenGraph) as caught:
        imported(graphs.write(tmp_path, text, header=header))

    assert str(caught.value) == message


def test_texts_are_recorded(tmp_path: Path) -> None:
    text = "g (string[N] x) => (string[N] y) { y = Identity(x) }"

    _, bundle = imported(graphs.write(tmp_path, text))

    golden = bundle.golden()
    assert golden is not None and golden.inputs["x"].dtype == object
    assert golden.outputs["y"].tolist() == golden.inputs["x"].tolist()


def test_given_outputs_are_compared_and_recorded(tmp_path: Path) -> None:
    given = {"x": ROWS, "y": 2 * ROWS + np.float32(1e-5)}

    published, bundle = imported(
        graphs.write(tmp_path, graphs.SCALE), golden=given, golden_from="answers.npz"
    )

    assert published.parity.against == "golden outputs: answers.npz"
    assert published.parity.max_absolute == pytest.approx(1e-5, rel=0.1)
    golden = bundle.golden()
    assert golden is not None
    np.testing.assert_array_equal(golden.inputs["x"], ROWS[:4])
    np.testing.assert_array_equal(golden.outputs["y"], given["y"][:4])


@pytest.mark.parametrize(
    ("width", "lengths", "message"),
    [
        (9, [9, 3, 0], "golden: lengths: expected lengths from 1 to 9, got 0 to 9"),
        (21, [21, 3, 1], "golden: frames: expected entries of a row from 1 to 20, got 21 to 21"),
    ],
)
def test_given_rows_must_be_as_a_server_admits_them(
    tmp_path: Path, width: int, lengths: list[int], message: str
) -> None:
    golden = {"frames": np.ones((3, width), np.float32), "lengths": np.array(lengths)}

    with pytest.raises(ExportError, match=message):
        imported(
            graphs.write(tmp_path, graphs.MASKED_SUM), lengths="lengths", maximum=20, golden=golden
        )


def test_given_ids_must_be_in_their_range(tmp_path: Path) -> None:
    golden = {"ids": np.array([[0, 2, 1]])}

    with pytest.raises(ExportError, match="golden: ids: expected values from 0 to 1, got 0 to 2"):
        imported(graphs.write(tmp_path, graphs.EMBEDDING), ranges={"ids": (0, 1)}, golden=golden)


def test_given_outputs_that_differ_close_the_gate(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.SCALE)
    given = {"x": ROWS, "y": 2 * ROWS + np.float32(0.01)}

    with pytest.raises(ParityError, match=r"'y': differs from the outputs given by 0\.01"):
        imported(file, golden=given)
    assert imported(file, golden=given, tolerance=0.02)[0].parity.max_absolute > 0.009


def test_pictures_are_pixels_of_the_bundle(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.PICTURES)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 6, 3), np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.1, 0.2, 0.4])

    _, bundle = imported(
        file,
        pictures=Pictures(input="data", mean=mean.tolist(), std=std.tolist(), short_side=8),
        labels={"": ["a", "b", "c"]},
    )

    contract = bundle.contract
    assert contract.task == "image-classification" and contract.preprocessing is not None
    assert contract.preprocessing.model_dump() == {
        "input": "image",
        "height": 4,
        "width": 6,
        "channels": 3,
        "resize": "short-side",
        "short_side": 8,
        "output": "probabilities",
    }
    data = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    expected = run(file.read_bytes(), data=data)["scores"]
    outputs = run(bundle.model, image=pixels)
    np.testing.assert_allclose(outputs["scores"], expected, rtol=1e-5, atol=1e-5)
    exponents = np.exp(expected)
    np.testing.assert_allclose(
        outputs["probabilities"], exponents / exponents.sum(axis=1, keepdims=True), rtol=1e-4
    )
    assert bundle.labels("probabilities") == bundle.labels("scores") == ["a", "b", "c"]


def test_probabilities_get_no_second_softmax(tmp_path: Path) -> None:
    text = graphs.PICTURES.replace("scores = Reduce", "m = Reduce").replace(
        "(data)\n}", "(data)\n scores = Softmax(m) }"
    )

    _, bundle = imported(graphs.write(tmp_path, text), pictures=Pictures(input="data"))

    assert bundle.contract.preprocessing is not None
    assert bundle.contract.preprocessing.output == "scores"


def test_half_precision_is_recorded(tmp_path: Path) -> None:
    text = "g (float16[N, 4] x) => (float16[N, 4] y) <float16 two = {16384}> { y = Mul(x, two) }"

    _, bundle = imported(graphs.write(tmp_path, text))

    assert bundle.contract.precision == "fp16"
    assert bundle.contract.providers == ["cpu", "cuda"]


def test_default_input_is_fixed(tmp_path: Path) -> None:
    model = graphs.model(graphs.SCALE)
    model.graph.input.append(onnx.helper.make_tensor_value_info("two", onnx.TensorProto.FLOAT, []))
    file = tmp_path / "net.onnx"
    onnx.save(model, file)

    published, bundle = imported(file)

    assert "input two is fixed to its default" in published.remarks
    assert axes_of(bundle.model).keys() == {"x", "y"}


def test_weights_that_are_inputs_of_an_old_format_stay_weights(tmp_path: Path) -> None:
    model = graphs.model(graphs.SCALE, '<ir_version: 3, opset_import: ["" : 8]>')
    model.graph.input.append(onnx.helper.make_tensor_value_info("two", onnx.TensorProto.FLOAT, []))
    file = tmp_path / "net.onnx"
    onnx.save(model, file)

    published, bundle = imported(file)

    assert published.remarks == []
    assert axes_of(bundle.model) == {"x": ["batch", 4], "y": ["batch", 4]}


def test_random_outputs_are_refused(tmp_path: Path) -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) {
      noise = RandomNormalLike(x)
      y = Add(x, noise) }"""

    with pytest.raises(ParityError, match="'y': differs from"):
        imported(graphs.write(tmp_path, text))


def test_name_and_version_may_be_given(tmp_path: Path) -> None:
    file = graphs.write(tmp_path, graphs.SCALE)
    import_onnx(file, to=tmp_path / "models", name="mine")

    assert import_onnx(file, to=tmp_path / "models", name="mine").version == 2
    with pytest.raises(VersionExists):
        import_onnx(file, to=tmp_path / "models", name="mine", version=2)
    with pytest.raises(InvalidName):
        import_onnx(file, to=tmp_path / "models", name="../mine")


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        (graphs.SCALE, {"labels": {"z": ["a"]}}, r"labels: expected an output of \['y'\], got 'z'"),
        (graphs.SCALE, {"labels": {"": ["a"]}}, r"labels: expected 4 lines for output y"),
        (graphs.SCALE, {"ranges": {"z": (0, 1)}}, r"range: expected an input of \['x'\], got 'z'"),
        (
            graphs.SCALE,
            {"lengths": "x"},
            r"lengths: expected an input of integers .* got x float32",
        ),
        (
            graphs.SCALE,
            {"time_axes": {"x": 1}},
            r"time axis: expected a free axis, got 4 at axis 1",
        ),
        (graphs.MASKED_SUM, {"time_axes": {"frames": 2}}, r"expected an axis from 1 to 1, got 2"),
        (graphs.MASKED_SUM, {"time_axes": {"f": 1}}, r"of \['frames', 'lengths'\], got 'f'"),
        (
            graphs.MASKED_SUM,
            {"lengths": "lengths", "padding": {"lengths": 1}},
            r"padding: expected an input with a time axis, \['frames'\], got 'lengths'",
        ),
        (graphs.EMBEDDING, {"ranges": {"ids": (0, 3)}}, r"range: expected 0 to 2 for ids"),
        (
            graphs.SCALE,
            {"golden": {"z": ROWS}},
            r"golden: expected the inputs \['x'\], and outputs",
        ),
        (graphs.SCALE, {"golden": {"x": ROWS[:, :3]}}, r"golden: expected x float32 \[N, 4\], got"),
        (graphs.SCALE, {"pictures": Pictures(input="x")}, r"image: .* with 4 axes, got x float32"),
        (
            graphs.PICTURES,
            {"pictures": Pictures(input="data", mean=[0.5, 0.4])},
            r"mean: expected 1 or 3 numbers, got 2",
        ),
        (
            graphs.PICTURES,
            {"pictures": Pictures(input="data", short_side=5)},
            r"short side: expected at least 6, got 5",
        ),
    ],
)
def test_specification_that_does_not_fit_names_what_there_is(
    tmp_path: Path, text: str, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        imported(graphs.write(tmp_path, text), **spec)

    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"tolerance": math.inf}, "tolerance: expected a finite number from 0, got inf"),
        ({"maximum": 10**9}, "max length: expected 1 to 16777216 entries, got 1000000000"),
        ({"maximum": 0}, "max length: expected 1 to 16777216 entries, got 0"),
    ],
)
def test_numbers_that_no_import_can_have_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        ImportSpec(**spec)


LAYERS = """
g (float[N, 8] x) => (float[N, 3] logits)
<float[8, 16] first = {FIRST}, float[16, 3] second = {SECOND}> {
  hidden = MatMul(x, first)
  active = Relu(hidden)
  logits = MatMul(active, second)
}"""


def layers() -> str:
    generator = np.random.default_rng(0)
    first, second = (
        ", ".join(map(str, generator.normal(size=size).round(3))) for size in (128, 48)
    )
    return LAYERS.replace("FIRST", first).replace("SECOND", second)


def int8_spec(**changes: Any) -> Int8:
    rows = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
    return Int8(calibration={"x": rows}, calibration_from="rows.npz", **changes)


def test_large_weights_stay_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if 4 KiB of weights were 2 GiB.
    monkeypatch.setattr(large_graph, "MOST_INSIDE_BYTES", 4096)
    weights = np.random.default_rng(0).normal(size=(4, 500)).astype(np.float32)
    model = graphs.model("g (float[N, 4] x) => (float[N, 500] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin")

    _, bundle = imported(tmp_path / "net.onnx")

    assert bundle.files["model.onnx.data"] == weights.tobytes()
    golden = bundle.golden()
    assert golden is not None
    np.testing.assert_allclose(
        golden.outputs["y"], golden.inputs["x"] @ weights, rtol=1e-5, atol=1e-5
    )


def test_int8_keeps_the_classes(tmp_path: Path) -> None:
    published, bundle = imported(graphs.write(tmp_path, layers()), int8=int8_spec(max_drop=5.0))

    contract: Contract = bundle.contract
    assert (contract.precision, contract.providers) == ("int8", ["cpu"])
    cost = contract.quantisation
    assert cost is not None and cost == published.quantisation
    assert (cost.calibration, cost.calibration_rows, cost.before) == ("rows.npz", 200, 1.0)
    assert 0.95 <= cost.after <= 1.0
    operators = {node.op_type for node in onnx.load_from_string(bundle.model).graph.node}
    assert "QuantizeLinear" in operators
    golden = bundle.golden()
    assert golden is not None
    np.testing.assert_array_equal(
        run(bundle.model, **golden.inputs)["logits"], golden.outputs["logits"]
    )


def test_int8_that_changes_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccuracyError, match=r"int8: accuracy falls from 100\.00% to"):
        imported(graphs.write(tmp_path, layers()), int8=int8_spec(max_drop=0.0))


@pytest.mark.parametrize("bounds", [(2, 1), (0, float("inf")), (float("nan"), 1), (0, 1e30)])
def test_range_has_two_numbers_in_order(bounds: tuple[float, float]) -> None:
    with pytest.raises(ExportError, match="range of 'x': expected MIN <= MAX"):
        ImportSpec(ranges={"x": bounds})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((0, 8), np.float32), "expected 1 or more rows of x, got none"),
        (np.full((2, 8), np.nan, np.float32), "calibration: expected finite numbers for x"),
        (np.ones((0, 8), np.float32), "calibration: expected 1 or more rows of x, got none"),
        (np.ones((2, 3), np.float32), r"calibration: expected x float32 \[batch, 8\], got float32"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(
    tmp_path: Path, rows: np.ndarray, message: str
) -> None:
    settings = Int8(calibration={"x": rows}, calibration_from="rows.npz")

    with pytest.raises(ExportError, match=message):
        imported(graphs.write(tmp_path, layers()), int8=settings)


def test_golden_inputs_without_rows_are_refused(tmp_path: Path) -> None:
    golden = {"x": np.ones((0, 4), np.float32)}

    with pytest.raises(ExportError, match="golden: expected 1 or more rows of x, got none"):
        imported(graphs.write(tmp_path, graphs.SCALE), golden=golden)


def test_graph_of_scalars_is_imported(tmp_path: Path) -> None:
    _, bundle = imported(graphs.write(tmp_path, "g (float x) => (float y) { y = Neg(x) }"))

    assert bundle.contract.batch_axis is None


def test_int8_needs_every_input(tmp_path: Path) -> None:
    settings = Int8(calibration={"z": ROWS}, calibration_from="rows.npz")

    with pytest.raises(ExportError, match=r"calibration: expected the inputs \['x'\], got \['z'\]"):
        imported(graphs.write(tmp_path, layers()), int8=settings)


def test_slow_normalisation_leads_to_the_options_for_pictures(tmp_path: Path) -> None:
    file = tmp_path / "pictures.onnx"
    file.write_bytes(profiled_graphs.channels_last())

    imported = import_onnx(file, to=tmp_path / "models")

    assert any("by channels-last broadcast" in each for each in imported.remarks)
    assert "--image, --scale, --mean and --std" in imported.remarks[-1]
