"""Publication of an ONNX file as a bundle: servable graph, example inputs, gate, contract."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from weir.bundle import data_dependent_shapes, golden, reader, writer
from weir.bundle.contract import (
    Contract,
    Parity,
    Precision,
    Preprocessing,
    Quantisation,
    Source,
    Task,
)
from weir.bundle.escaping import short_list
from weir.bundle.golden import Golden
from weir.bundle.sequences import PaddedAxis, ValueRange, check_axes
from weir.bundle.tokenizer_json import FILE_NAME as TOKENIZER
from weir.bundle.writer import lines_of, name_label_files
from weir.export import accuracy, runtime, static_quantisation
from weir.export.errors import ExportError
from weir.export.onnx_import import axes, embedding, pictures, source, zip_map
from weir.export.onnx_import.examples import BATCH, TIME, Drawer, Spread, runnable
from weir.export.onnx_import.naming import default_name
from weir.export.onnx_import.pictures import PictureInput
from weir.export.onnx_import.proof import Gate, Proof, RowsDependError
from weir.export.onnx_import.reference import Reference
from weir.export.onnx_import.source import SourceModel
from weir.export.onnx_import.spec import ImportSpec, Int8
from weir.export.onnx_import.tensor_specs import TensorSpec, find, inputs_of, spec_of
from weir.export.onnx_import.texts import TextInputs, text_inputs
from weir.export.onnx_import.zip_map import PROBABILITIES
from weir.export.tokenizer_file import TokenizerFile

Array = NDArray[Any]

GOLDEN_ROWS = 4
LOGITS = "logits"
DEFAULT_MAXIMUM = 512
"""Entries of a row along a padded axis."""

_GOLDEN_SEED = 20_262
_RECORDED_PACKAGES = ("onnx", "numpy")
# By precision: of what the server runs, relative to the value and to the largest output.
_TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}


@dataclass(frozen=True, slots=True)
class Imported:
    """A published bundle of an ONNX file.

    Attributes:
        remarks: what a user should know of the import, a line each.
    """

    path: Path
    version: int
    parity: Parity
    checks: Sequence[str]
    size_bytes: int
    precision: Precision
    quantisation: Quantisation | None
    remarks: Sequence[str]


@dataclass(slots=True)
class _Candidate:
    """A graph on its way into a bundle."""

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


@dataclass(frozen=True, slots=True)
class _Proved:
    """A graph that passed its gate."""

    data: bytes
    gate: Gate
    proof: Proof
    is_batched: bool


def import_onnx(
    file: Path | str,
    spec: ImportSpec | None = None,
    *,
    to: Path | str,
    name: str | None = None,
    version: int | None = None,
) -> Imported:
    """Publish an ONNX file of any exporter as a bundle, once its graph passes the gate.

    Args:
        file: with its weights inside, or in files beside it.
        spec: the facts that the file does not contain.
        to: the model repository; the bundle is `<to>/<name>/<version>/`.
        name: the model's name; by default the file's, or its folder's for `model.onnx`.
        version: its number; by default the next free one.

    Raises:
        ExportError: the specification does not fit the graph; BrokenGraph: the file is no valid
            ONNX; ParityError: a check failed; AccuracyError: INT8 costs too much.
        BundleError: the name is invalid, the version exists, or a file is unsafe.
    """
    file, spec = Path(file), spec or ImportSpec()
    name = name or default_name(file)
    writer.check_target(Path(to), name, version)
    read = source.read(file)
    candidate = _servable(read, spec)
    given = _given_inputs(candidate, spec)
    proved = _prove(candidate, spec, given)
    precision = candidate.precision
    quantisation = None
    if spec.int8 is not None:
        proved, quantisation = _quantise(proved, candidate, spec.int8)
        precision = "int8"
    parity, recorded = _record(proved, candidate, spec, given)
    label_files = name_label_files(candidate.labels)
    files = {
        reader.MODEL: proved.data,
        **read.external_data,
        golden.FILE_NAME: golden.encode(recorded),
        **{label_file: lines_of(labels) for labels, label_file in label_files.items()},
    }
    if (text := candidate.text) is not None:
        files[TOKENIZER] = text.tokenizer.file
    contract = Contract(
        task=_task(candidate),
        architecture=name,
        batch_axis=BATCH if proved.is_batched else None,
        padded_axes={} if candidate.padded is None else {TIME: candidate.padded},
        value_ranges=_value_ranges(candidate),
        labels={output: label_files[tuple(each)] for output, each in candidate.labels.items()},
        preprocessing=candidate.preprocessing,
        tokenisation=text.tokenisation if text else None,
        batching=spec.batching,
        precision=precision,
        providers=["cpu"] if spec.int8 else ["cpu", "cuda"],
        tolerance=proved.proof.tolerance,
        parity=parity,
        quantisation=quantisation,
        source=Source(
            files=read.files,
            producer=read.producer,
            opsets=read.opsets,
            command=spec.command,
            changes=candidate.changes,
            checks=list(proved.proof.checks),
        ),
        versions=_versions(),
    )
    path = writer.write(files, contract, Path(to), name, version)
    return Imported(
        path=path,
        version=int(path.name),
        parity=parity,
        checks=proved.proof.checks,
        size_bytes=sum(map(len, files.values())),
        precision=precision,
        quantisation=quantisation,
        remarks=[*candidate.changes, *candidate.remarks],
    )


def _servable(read: SourceModel, spec: ImportSpec) -> _Candidate:
    """The graph with servable inputs and outputs, and what the specification says of them."""
    model = onnx.ModelProto()
    model.CopyFrom(read.model)
    changes = zip_map.freeze_defaults(model)
    servable = zip_map.keep_tensors(model)
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
    candidate = _Candidate(
        model=model,
        external_data=read.external_data,
        reference=Reference.of(read, servable),
        picture=None,
        text=text,
        ranges=ranges,
        places=places,
        padded=padded,
        labels=_labels(servable.labels, axes.declared_outputs(model), spec),
        precision=_precision(read.model),
        changes=[*changes, *servable.changes],
        remarks=list(read.remarks),
    )
    if spec.pictures is not None:
        candidate.picture = pictures.picture_input(spec.pictures, inputs)
        candidate.reference.picture = candidate.picture
        candidate.changes.append(pictures.prepend(model, candidate.picture))
    try:
        check_axes({TIME: padded} if padded else {}, _value_ranges(candidate), BATCH)
    except ValueError as error:
        raise ExportError(str(error)) from error
    scored = {PROBABILITIES, LOGITS, *candidate.labels}
    if text is not None and not scored & servable.origins.keys():
        raise ExportError(
            f"tokenizer: expected labels, or an output named {PROBABILITIES} or {LOGITS}, "
            f"got {sorted(servable.origins)}"
        )
    for name, (low, high) in ranges.items():
        if name not in spec.ranges:
            candidate.remarks.append(f"input {name}: values {low:g} to {high:g}, as its table has")
    return candidate


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


def _prove(candidate: _Candidate, spec: ImportSpec, given: Mapping[str, Array]) -> _Proved:
    """Pass the gate with a batch axis if there is one, else without."""
    inputs = inputs_of(candidate.model)
    is_wanted = spec.has_rows_for_sure
    reason = ""
    if spec.is_batched is False:
        reason = "as asked for"
    elif not is_wanted and axes.is_fixed_at_one(inputs):
        reason = (
            "the first axis is fixed at 1 in the file (--batch frees it, if that can be proved)"
        )
    elif not is_wanted and (reason := _unproved_form(candidate.model, is_wanted=False)):
        reason += " (--batch says that there is a batch axis)"
    if not reason:
        try:
            return _prove_with_rows(candidate, spec, given)
        except axes.NoBatchAxisError as error:
            if is_wanted:
                raise
            reason = str(error)
        except RowsDependError as error:
            if is_wanted:
                raise
            reason = str(error)
    candidate.remarks.append(f"not batched, one request at a time: {reason}")
    return _prove_without_rows(candidate, spec, given)


def _unproved_form(model: onnx.ModelProto, *, is_wanted: bool) -> str:
    """Why the graph's form does not prove a batch axis; empty if it does."""
    found = data_dependent_shapes.find(model.SerializeToString())
    if found.operators and not is_wanted:
        return f"shapes depend on values, by operators {short_list(list(found.operators))}"
    if found.outputs:
        return f"the shape depends on values, of outputs {short_list(list(found.outputs))}"
    if found.reductions and not is_wanted:
        return f"all rows are reduced to one number, by {short_list(list(found.reductions))}"
    return ""


def _prove_with_rows(
    candidate: _Candidate, spec: ImportSpec, given: Mapping[str, Array]
) -> _Proved:
    if problem := _unproved_form(candidate.model, is_wanted=spec.has_rows_for_sure):
        raise RowsDependError(problem)
    reference = candidate.reference
    model = onnx.ModelProto()
    model.CopyFrom(candidate.model)
    was_fixed = axes.name_inputs(model, inputs_of(model), candidate.places)
    reference = replace(reference, takes_single_rows=was_fixed)
    if was_fixed:
        candidate.changes.append("the first axis, 1 in the file, is free")
    try:
        return _gated(candidate, model, reference, spec, given, is_batched=True)
    except RowsDependError as error:
        if not was_fixed:
            raise
        raise RowsDependError(
            f"the first axis is fixed at 1, and {error}; export the file with a free batch axis"
        ) from error


def _prove_without_rows(
    candidate: _Candidate, spec: ImportSpec, given: Mapping[str, Array]
) -> _Proved:
    model = onnx.ModelProto()
    model.CopyFrom(candidate.model)
    axes.forget_meanings(model)
    return _gated(candidate, model, candidate.reference, spec, given, is_batched=False)


def _gated(
    candidate: _Candidate,
    model: onnx.ModelProto,
    reference: Reference,
    spec: ImportSpec,
    given: Mapping[str, Array],
    *,
    is_batched: bool,
) -> _Proved:
    declared = axes.declared_outputs(model)
    axes.forget_shapes(model)
    drawer = Drawer(
        inputs_of(model),
        candidate.padded,
        _spreads(candidate, given),
        {
            (name, place): size
            for name, array in given.items()
            for place, size in enumerate(array.shape)
        },
    )
    session = _open(candidate, model.SerializeToString())
    names = [value.name for value in model.graph.output]
    drawer = _with_maximum(candidate, runnable(drawer, reference.run), reference, spec)
    widths = axes.observed_widths(candidate.padded)
    shapeless = Gate(session, reference, drawer, dict.fromkeys(names, ()), 0.0)
    observed = [
        shapeless.run(axes.observe(drawer, rows, width))
        for rows, width in zip(axes.OBSERVED_ROWS, widths, strict=True)
    ]
    axes.name_outputs(model, declared, observed, drawer, widths)
    if spec.pictures is not None:
        reference = _classify(candidate, model, reference, spec, observed)
    if candidate.text is not None:
        reference = _name_probabilities(candidate, model, reference, observed)
    data = model.SerializeToString()
    candidate.remarks += source.check(model, data, candidate.external_data)
    outputs = {each.name: each.axes or () for each in map(spec_of, model.graph.output) if each}
    gate = Gate(_open(candidate, data), reference, drawer, outputs, _tolerance(candidate, spec))
    return _Proved(data, gate, gate.prove(), is_batched)


def _open(candidate: _Candidate, data: bytes) -> onnxruntime.InferenceSession:
    return runtime.open_session(data, external_data=candidate.external_data)


def _with_maximum(
    candidate: _Candidate, drawer: Drawer, reference: Reference, spec: ImportSpec
) -> Drawer:
    """The drawer with a maximum of entries that the graph runs with, half as many if it must.

    ExportError if the maximum was specified, or if no row runs.
    """
    padded = candidate.padded
    while padded is not None:
        inputs = drawer.draw(1, np.random.default_rng(_GOLDEN_SEED), padded.maximum)
        try:
            reference.run(inputs)
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            if spec.maximum is not None or padded.maximum == 1:
                raise ExportError(
                    f"max length: expected rows of {padded.maximum} entries to run: "
                    f"{runtime.reason(error)}"
                ) from error
            padded = padded.model_copy(update={"maximum": padded.maximum // 2})
        else:
            break
    candidate.padded = padded
    if padded is not None and spec.maximum is None:
        candidate.remarks.append(f"a row has at most {padded.maximum} entries (--max-length)")
    return replace(drawer, padded=padded)


def _classify(
    candidate: _Candidate,
    model: onnx.ModelProto,
    reference: Reference,
    spec: ImportSpec,
    observed: Sequence[Mapping[str, Array]],
) -> Reference:
    """The contract of the pictures, with a softmax behind the graph where scores need one."""
    if spec.pictures is None or candidate.picture is None:
        return reference
    outputs = list(axes.declared_outputs(model).values())
    scores = pictures.scores_output(spec.pictures, outputs)
    has_softmax = spec.pictures.has_softmax
    if has_softmax is None:
        has_softmax = not all(pictures.are_probabilities(run[scores]) for run in observed)
    output = scores
    if has_softmax:
        output = pictures.append_softmax(model, scores, {each.name for each in outputs})
        reference = replace(reference, softmaxes={output: scores})
        candidate.changes.append(f"output {output} is the softmax of {scores}")
        if scores in candidate.labels:
            candidate.labels[output] = candidate.labels[scores]
    candidate.preprocessing = pictures.preprocessing(spec.pictures, candidate.picture, output)
    return reference


def _name_probabilities(
    candidate: _Candidate,
    model: onnx.ModelProto,
    reference: Reference,
    observed: Sequence[Mapping[str, Array]],
) -> Reference:
    """Name the scores of texts `probabilities` if they are; else the server takes their softmax."""
    found = reference.outputs
    scores = next(
        name for name in (PROBABILITIES, *candidate.labels, LOGITS) if name in found.origins
    )
    is_named = scores == PROBABILITIES
    if is_named or not all(pictures.are_probabilities(run[scores]) for run in observed):
        return reference
    node = onnx.helper.make_node("Identity", [scores], [PROBABILITIES], "weir_probabilities")
    pictures.append_output(model, node, scores)
    candidate.changes.append(
        f"output {scores} is also named {PROBABILITIES}, as its rows add up to 1"
    )
    if scores in candidate.labels:
        candidate.labels[PROBABILITIES] = candidate.labels[scores]
    origins = {**found.origins, PROBABILITIES: found.origins[scores]}
    return replace(reference, outputs=replace(found, origins=origins))


def _spreads(candidate: _Candidate, given: Mapping[str, Array]) -> dict[str, Spread]:
    spreads = {}
    for name, array in given.items():
        if array.dtype.kind in "iu" and array.size:
            spreads[name] = Spread(float(array.min()), float(array.max()))
        elif array.dtype.kind == "f" and array.size and np.isfinite(array).all():
            spreads[name] = Spread(mean=float(array.mean()), std=float(array.std()), is_normal=True)
    spreads |= {name: Spread(low, high) for name, (low, high) in candidate.ranges.items()}
    return spreads


def _given_inputs(candidate: _Candidate, spec: ImportSpec) -> dict[str, Array]:
    """The golden inputs that were given; ExportError unless all names are the graph's."""
    inputs = {each.name: each for each in inputs_of(candidate.model)}
    own = dict(inputs)
    if candidate.picture is not None:
        own[candidate.picture.original.name] = candidate.picture.original
        del own[candidate.picture.name]
    outputs = set(candidate.reference.outputs.origins)
    names = {name for name in spec.golden if name not in outputs}
    if not spec.golden or names == inputs.keys() or names == own.keys():
        return _checked({name: spec.golden[name] for name in names}, {**own, **inputs})
    raise ExportError(
        f"golden: expected the inputs {sorted(inputs)}, and outputs of {sorted(outputs)}, "
        f"got {sorted(spec.golden)}"
    )


def _checked(arrays: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Arrays of the inputs' types and axes."""
    for name, array in arrays.items():
        spec = specs[name]
        dtype = np.dtype(object) if array.dtype.kind in "SU" else array.dtype
        fits = len(spec.axes or ()) == array.ndim and all(
            not isinstance(axis, int) or axis == size or (place == 0 and axis == 1)
            for place, (axis, size) in enumerate(zip(spec.axes or (), array.shape, strict=True))
        )
        if dtype != spec.dtype or not fits:
            raise ExportError(
                f"golden: expected {spec}, got {array.dtype} {list(array.shape)} for {name}"
            )
    return {
        name: array.astype(np.str_).astype(object) if array.dtype.kind in "SU" else array
        for name, array in arrays.items()
    }


def _record(
    proved: _Proved, candidate: _Candidate, spec: ImportSpec, given: Mapping[str, Array]
) -> tuple[Parity, Golden]:
    """Parity, and golden inputs with their outputs; outputs that were given are compared first."""
    _check_given(given, candidate)
    gate, parity = proved.gate, proved.proof.parity
    inputs: Mapping[str, Array] = given
    expected = {
        name: array
        for name, array in spec.golden.items()
        if name in candidate.reference.outputs.origins
    }
    picture = candidate.picture
    is_own = picture is not None and picture.original.name in given
    if given and expected:
        outputs = gate.reference.run_own(given) if is_own else gate.run(given)
        parity = gate.compare_given(given, outputs, expected)
        parity = parity.model_copy(update={"against": f"golden outputs: {spec.golden_from}"})
    if not given or is_own:
        generator = np.random.default_rng(_GOLDEN_SEED)
        inputs = gate.drawer.draw(GOLDEN_ROWS, generator)
        expected = {}
    outputs = gate.run(inputs)
    recorded = {
        name: np.asarray(expected.get(name, array)).astype(array.dtype)
        for name, array in outputs.items()
    }
    if proved.is_batched:
        inputs = {name: array[:GOLDEN_ROWS] for name, array in inputs.items()}
        recorded = {name: array[:GOLDEN_ROWS] for name, array in recorded.items()}
    for name, array in recorded.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            candidate.remarks.append(
                f"output {name}: some values are NaN for the inputs that were made up; "
                "give --range or --golden"
            )
    return parity, Golden(inputs, recorded)


def _check_given(given: Mapping[str, Array], candidate: _Candidate) -> None:
    """Raise ExportError unless given inputs have values and lengths that a server admits."""
    for name, bounds in _value_ranges(candidate).items():
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


def _quantise(
    proved: _Proved, candidate: _Candidate, settings: Int8
) -> tuple[_Proved, Quantisation]:
    """The graph in INT8, compared with the file and with the classes of its FP32 graph."""
    gate = proved.gate
    if candidate.external_data:
        raise ExportError("int8: expected weights of less than 2 GiB, got more")
    if not proved.is_batched or candidate.padded is not None:
        raise ExportError("int8: expected a model with rows of one size, got another")
    specs = {each.name: each for each in gate.drawer.inputs}
    if settings.calibration.keys() != specs.keys():
        raise ExportError(
            f"calibration: expected the inputs {sorted(specs)}, got {sorted(settings.calibration)}"
        )
    rows = _checked(settings.calibration, specs)
    output = settings.output or _scores(candidate, gate)
    if gate.axes[output][-1:] == (BATCH,):
        raise ExportError(f"int8: expected an output of scores [batch, classes], got {output!r}")
    data = static_quantisation.quantise(static_quantisation.preprocess(proved.data), _batches(rows))
    first = next(_batches(rows))
    floats = [
        each.name
        for each in axes.declared_outputs(onnx.load_from_string(data)).values()
        if each.dtype.kind == "f"
    ]
    tolerance = static_quantisation.fusion_tolerance(data, first, floats)
    answers = np.concatenate([gate.run(batch)[output].argmax(axis=-1) for batch in _batches(rows)])
    count = len(next(iter(rows.values())))
    cost = Quantisation(
        method="static",
        before=1.0,
        after=accuracy.measure(data, _batches(rows), answers, output),
        calibration=settings.calibration_from,
        calibration_rows=count,
        test=f"rows of {settings.calibration_from}, with the answers of the FP32 graph",
        test_rows=count,
    )
    accuracy.check_drop(cost, settings.max_drop)
    reduced = replace(gate, session=runtime.open_session(data))
    proof = reduced.record(_batches(rows), tolerance, proved.proof)
    candidate.changes.append(f"weights and activations are INT8, calibrated on {count} rows")
    return replace(proved, data=data, gate=reduced, proof=proof), cost


def _scores(candidate: _Candidate, gate: Gate) -> str:
    if candidate.preprocessing is not None:
        return candidate.preprocessing.output
    fitting = [
        name for name, own in gate.axes.items() if len(own) > 1 and name in candidate.labels
    ] or [name for name, own in gate.axes.items() if len(own) == 2]
    if len(fitting) != 1:
        raise ExportError(
            f"int8: expected one output with labels, to compare classes by, got {sorted(gate.axes)}"
        )
    return fitting[0]


def _batches(rows: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    count = len(next(iter(rows.values())))
    size = static_quantisation.BATCH_ROWS
    for first in range(0, count, size):
        yield {name: array[first : first + size] for name, array in rows.items()}


def _task(candidate: _Candidate) -> Task:
    if candidate.preprocessing is not None:
        return "image-classification"
    return "other" if candidate.text is None else "sequence-classification"


def _value_ranges(candidate: _Candidate) -> dict[str, ValueRange]:
    """The ranges of integer inputs; those of floats only shape the examples."""
    integers = {each.name for each in inputs_of(candidate.model) if each.dtype.kind in "iu"}
    lengths = candidate.padded.lengths if candidate.padded else None
    return {
        name: ValueRange(minimum=int(low), maximum=int(high))
        for name, (low, high) in candidate.ranges.items()
        if name in integers and name != lengths
    }


def _tolerance(candidate: _Candidate, spec: ImportSpec) -> float:
    if spec.tolerance is not None:
        return spec.tolerance
    outputs = axes.declared_outputs(candidate.model).values()
    is_rounded = any(each.dtype == np.float16 for each in outputs)
    return max(_TOLERANCES[candidate.precision], _TOLERANCES["fp16"] if is_rounded else 0.0)


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


def _versions() -> dict[str, str]:
    versions = {package: installed_version(package) for package in _RECORDED_PACKAGES}
    return {**versions, "onnxruntime": runtime.VERSION, "python": platform.python_version()}
