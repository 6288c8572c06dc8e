"""Candidate of an import: a graph with servable inputs and outputs, and what is known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from weir.bundle.contract import Precision, Preprocessing
from weir.bundle.sequences import PaddedAxis, ValueRange, check_axes
from weir.export.errors import ExportError
from weir.export.onnx_import import axes, embedding, pictures, source, zip_map
from weir.export.onnx_import.examples import BATCH, TIME
from weir.export.onnx_import.pictures import PictureInput
from weir.export.onnx_import.reference import Reference
from weir.export.onnx_import.source import SourceModel
from weir.export.onnx_import.spec import ImportSpec
from weir.export.onnx_import.tensor_specs import TensorSpec, find, inputs_of
from weir.export.onnx_import.texts import TextInputs, text_inputs
from weir.export.onnx_import.zip_map import PROBABILITIES
from weir.export.tokenizer_file import TokenizerFile

Array = NDArray[Any]

LOGITS = "logits"
DEFAULT_MAXIMUM = 512
"""Entries of a row along a padded axis."""


@dataclass(slots=True)
class Candidate:
    """A graph before its gate, and what the contract will say of it."""

    model: onnx.ModelProto
    external_data: Mapping[str, bytes]
    reference: Reference
    picture: PictureInput | None
    text: TextInputs | None
    ranges: dict[str, tuple[float, float]]
    places: dict[str, int]
    padded: PaddedAxis | None
    labels: dict[str, Sequence[str]]
    precision: Precision
    changes: list[str]
    remarks: list[str]
    preprocessing: Preprocessing | None = None


def servable(read: SourceModel, spec: ImportSpec) -> Candidate:
    """The graph with servable inputs and outputs, and what the specification says of them."""
    model = onnx.ModelProto()
    model.CopyFrom(read.model)
    changes = zip_map.freeze_defaults(model)
    kept = zip_map.keep_tensors(model)
    inputs = inputs_of(model)
    ranges = _ranges(model, inputs, spec)
    text = text_inputs(spec, inputs)
    mask = text.tokenizer.attention_mask if text else spec.mask
    places = axes.padded_places(text.places if text else spec.time_axes, spec.lengths, mask, inputs)
    maximum = text.tokenizer.maximum if text else spec.maximum or DEFAULT_MAXIMUM
    if text is not None:
        spec = replace(
            spec, padding={text.tokenizer.tokens: text.tokenizer.padding, **spec.padding}
        )
        ranges = _with_tokens(ranges, text.tokenizer)
    padded = axes.padded_axis(spec, places, mask, maximum)
    candidate = Candidate(
        model=model,
        external_data=read.external_data,
        reference=Reference.of(read, kept),
        picture=None,
        text=text,
        ranges=ranges,
        places=places,
        padded=padded,
        labels=_labels(kept.labels, axes.declared_outputs(model), spec),
        precision=_precision(read.model),
        changes=[*changes, *kept.changes],
        remarks=list(read.remarks),
    )
    if spec.pictures is not None:
        candidate.picture = pictures.picture_input(spec.pictures, inputs)
        candidate.reference.picture = candidate.picture
        candidate.changes.append(pictures.prepend(model, candidate.picture))
    try:
        check_axes({TIME: padded} if padded else {}, value_ranges(candidate), BATCH)
    except ValueError as error:
        raise ExportError(str(error)) from error
    scored = {PROBABILITIES, LOGITS, *candidate.labels}
    if text is not None and not scored & kept.origins.keys():
        raise ExportError(
            f"tokenizer: expected labels, or an output named {PROBABILITIES} or {LOGITS}, "
            f"got {sorted(kept.origins)}"
        )
    for name, (low, high) in ranges.items():
        if name not in spec.ranges:
            candidate.remarks.append(f"input {name}: values {low:g} to {high:g}, as its table has")
    return candidate


def given_inputs(candidate: Candidate, spec: ImportSpec) -> dict[str, Array]:
    """The golden inputs that were given; ExportError unless all names are the graph's."""
    inputs = {each.name: each for each in inputs_of(candidate.model)}
    own = dict(inputs)
    if candidate.picture is not None:
        own[candidate.picture.original.name] = candidate.picture.original
        del own[candidate.picture.name]
    outputs = set(candidate.reference.outputs.origins)
    names = {name for name in spec.golden if name not in outputs}
    if not spec.golden or names == inputs.keys() or names == own.keys():
        return checked({name: spec.golden[name] for name in names}, {**own, **inputs})
    raise ExportError(
        f"golden: expected the inputs {sorted(inputs)}, and outputs of {sorted(outputs)}, "
        f"got {sorted(spec.golden)}"
    )


def checked(
    arrays: Mapping[str, Array], specs: Mapping[str, TensorSpec], option: str = "golden"
) -> dict[str, Array]:
    """Arrays of the inputs' types and axes; ExportError with the name of their option."""
    for name, array in arrays.items():
        spec = specs[name]
        dtype = np.dtype(object) if array.dtype.kind in "SU" else array.dtype
        fits = len(spec.axes or ()) == array.ndim and all(
            not isinstance(axis, int) or axis == size or (place == 0 and axis == 1)
            for place, (axis, size) in enumerate(zip(spec.axes or (), array.shape, strict=True))
        )
        if dtype != spec.dtype or not fits:
            raise ExportError(
                f"{option}: expected {spec}, got {array.dtype} {list(array.shape)} for {name}"
            )
        if array.ndim and not len(array):
            raise ExportError(f"{option}: expected 1 or more rows of {name}, got none")
    return {
        name: array.astype(np.str_).astype(object) if array.dtype.kind in "SU" else array
        for name, array in arrays.items()
    }


def check_given(given: Mapping[str, Array], candidate: Candidate) -> None:
    """Raise ExportError unless given inputs have values and lengths that a server admits."""
    for name, bounds in value_ranges(candidate).items():
        array = given.get(name)
        if array is not None and array.size:
            _check_between(name, array, bounds.minimum, bounds.maximum, "values")
    padded = candidate.padded
    if padded is None:
        return
    for name, place in candidate.places.items():
        if name in given:
            width = given[name].shape[place]
            _check_between(name, np.array(width), 1, padded.maximum, "entries of a row")
            if padded.lengths is not None:
                _check_between(padded.lengths, given[padded.lengths], 1, width, "lengths")


def _check_between(name: str, array: Array, low: int, high: int, what: str) -> None:
    least, most = int(array.min()), int(array.max())
    if least < low or most > high:
        raise ExportError(
            f"golden: {name}: expected {what} from {low} to {high}, got {least} to {most}"
        )


def value_ranges(candidate: Candidate) -> dict[str, ValueRange]:
    """The ranges of integer inputs; those of floats only shape the examples."""
    integers = {each.name for each in inputs_of(candidate.model) if each.dtype.kind in "iu"}
    lengths = candidate.padded.lengths if candidate.padded else None
    return {
        name: ValueRange(minimum=int(low), maximum=int(high))
        for name, (low, high) in candidate.ranges.items()
        if name in integers and name != lengths
    }


def _ranges(
    model: onnx.ModelProto, inputs: Sequence[TensorSpec], spec: ImportSpec
) -> dict[str, tuple[float, float]]:
    """The range of each input that has one: as specified, else the size of its table."""
    ranges = {}
    for name in spec.ranges:
        tensor = find("range", name, inputs, "input")
        if tensor.dtype.kind not in "iuf":
            raise ExportError(f"range: expected an input of numbers, got {tensor}")
    found = embedding.table_sizes(model.graph, [each.name for each in inputs])
    for name, size in found.items():
        low, high = ranges[name] = spec.ranges.get(name, (0.0, size - 1.0))
        if low < -size or high > size - 1:
            raise ExportError(
                f"range: expected 0 to {size - 1} for {name}, the rows of its table, "
                f"got {low:g} to {high:g}"
            )
    return {**ranges, **spec.ranges}


def _with_tokens(
    ranges: Mapping[str, tuple[float, float]], tokenizer: TokenizerFile
) -> dict[str, tuple[float, float]]:
    """The ranges with that of the tokens, whose ids must be rows of the graph's table."""
    _, high = ranges.get(tokenizer.tokens, (0.0, float(tokenizer.greatest)))
    if tokenizer.greatest > high:
        raise ExportError(
            f"tokenizer: expected ids up to {high:g}, as input {tokenizer.tokens} takes them, "
            f"got {tokenizer.greatest}"
        )
    return {**ranges, tokenizer.tokens: (0.0, high)}


def _labels(
    found: Mapping[str, Sequence[str]], outputs: Mapping[str, TensorSpec], spec: ImportSpec
) -> dict[str, Sequence[str]]:
    """The labels by output: the keys of ZipMap, and those of the specification."""
    labels = dict(found)
    for name, lines in spec.labels.items():
        output = name or _labelled(outputs)
        tensor = find("labels", output, outputs.values(), "output")
        last = tensor.axes[-1] if tensor.axes else None
        if isinstance(last, int) and last != len(lines):
            raise ExportError(
                f"labels: expected {last} lines for output {tensor}, got {len(lines)}"
            )
        labels[output] = lines
    return labels


def _labelled(outputs: Mapping[str, TensorSpec]) -> str:
    """The only output of floats."""
    fitting = [name for name, spec in outputs.items() if spec.dtype.kind == "f"]
    if len(fitting) != 1:
        raise ExportError(
            "labels: expected OUTPUT=FILE, since the outputs are "
            + ", ".join(map(str, outputs.values()))
        )
    return fitting[0]


def _precision(model: onnx.ModelProto) -> Precision:
    """The arithmetic of a file: by its quantised operators, else by the type of its weights."""
    operators = {node.op_type for node in model.graph.node}
    if any("Quant" in each or "QLinear" in each or each.endswith("Integer") for each in operators):
        return "int8"
    sizes: dict[int, int] = {onnx.TensorProto.FLOAT16: 0, onnx.TensorProto.FLOAT: 0}
    for value in (*model.graph.input, *model.graph.output):
        sizes[value.type.tensor_type.elem_type] = 1
    for tensor in source.tensors(model):
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += int(np.prod(tensor.dims, dtype=np.int64))
    is_half = sizes[onnx.TensorProto.FLOAT16] > sizes[onnx.TensorProto.FLOAT]
    return "fp16" if is_half else "fp32"
