"""Batching of an import: a graph passes its gate with a batch axis, or else without.

The first axis is the batch axis only if three things hold:

- Form: no shape in the graph depends on values of its inputs, and no operator reduces them along
  the batch axis (`bundle.data_dependent_shapes`). If the specification says that there is a batch
  axis, the shapes of the outputs alone are asked.
- Runs: several rows give as many rows, and each gives what it gives alone (`parity_gate`).
- It is free in the file, or freed because the specification asks for a batch axis.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from weir.bundle import data_dependent_shapes
from weir.bundle.contract import Precision
from weir.bundle.escaping import short_list
from weir.export import runtime
from weir.export.errors import ExportError
from weir.export.onnx_import import axes, pictures, source
from weir.export.onnx_import.candidate import LOGITS, Candidate
from weir.export.onnx_import.examples import SCALES, Distribution, ExampleSampler, runnable
from weir.export.onnx_import.parity_gate import (
    Gate,
    Proof,
    RowsDependError,
    SameRowsError,
    SingleRowsError,
)
from weir.export.onnx_import.reference import Reference
from weir.export.onnx_import.spec import ImportSpec
from weir.export.onnx_import.tensor_specs import TensorSpec, inputs_of, spec_of
from weir.export.onnx_import.zip_map import PROBABILITIES

Array = NDArray[Any]

_SEED = 20_263
_MOST_TEXTS = 100
# Longer rows are not tried.
_MOST_ROW_BYTES = 1 << 28
# By precision: of what the server runs, relative to the value and to the largest output.
_TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}


@dataclass(frozen=True, slots=True)
class Proved:
    """A graph that passed its gate."""

    data: bytes
    gate: Gate
    proof: Proof
    is_batched: bool


def prove(candidate: Candidate, spec: ImportSpec, given: Mapping[str, Array]) -> Proved:
    """Pass the gate with a batch axis if there is one, else without."""
    inputs = inputs_of(candidate.model)
    is_wanted = spec.needs_batch_axis
    if is_wanted and spec.is_batched is False:
        raise ExportError(_contradiction(candidate.model, inputs))
    reason = ""
    if spec.is_batched is False:
        reason = "as specified (--no-batch)"
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
                raise axes.NoBatchAxisError(f"{error}; {_free_batch(candidate.model)}") from error
            reason = str(error)
        except RowsDependError as error:
            if is_wanted:
                raise
            reason = str(error)
    candidate.remarks.append(f"not batched, one request at a time: {reason}")
    return _prove_without_rows(candidate, spec, given)


def _contradiction(model: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> str:
    advice = "leave out --no-batch"
    if axes.is_fixed_at_one(inputs):
        advice = f"the file fixes its batch at 1: {_free_batch(model)}"
    return f"no batch: expected a batch axis for pictures, time axes, lengths and texts; {advice}"


def _unproved_form(model: onnx.ModelProto, *, is_wanted: bool) -> str:
    """Why the graph's form does not prove a batch axis; empty if it does."""
    found = data_dependent_shapes.find(model.SerializeToString())
    if found.operators and not is_wanted:
        return f"shapes depend on values, by operators {short_list(list(found.operators))}"
    if found.outputs:
        return f"the shape depends on values, of outputs {short_list(list(found.outputs))}"
    if found.reductions and not is_wanted:
        return f"all rows are reduced to one, by {short_list(list(found.reductions))}"
    return ""


def _prove_with_rows(candidate: Candidate, spec: ImportSpec, given: Mapping[str, Array]) -> Proved:
    if problem := _unproved_form(candidate.model, is_wanted=spec.needs_batch_axis):
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
    except SameRowsError:
        raise
    except RowsDependError as error:
        if not was_fixed:
            raise
        # ONNX Runtime's message about a node inside the graph says less.
        reason = "rows do not run together" if isinstance(error, SingleRowsError) else str(error)
        raise RowsDependError(
            f"the file fixes its batch at 1, also inside the graph ({reason}): "
            f"{_free_batch(candidate.model)}"
        ) from error


def _free_batch(model: onnx.ModelProto) -> str:
    """Advice to export the file with a free batch axis, in the words of its exporter."""
    advice = "export it with a free batch axis"
    if model.producer_name != "pytorch":
        return advice
    inputs = len(model.graph.input)
    times = f" * {inputs}" if inputs > 1 else ""
    return (
        f"{advice}, torch.onnx.export(..., dynamic_shapes=[{{0: torch.export.Dim.DYNAMIC}}]{times})"
    )


def _prove_without_rows(
    candidate: Candidate, spec: ImportSpec, given: Mapping[str, Array]
) -> Proved:
    model = onnx.ModelProto()
    model.CopyFrom(candidate.model)
    axes.forget_meanings(model)
    return _gated(candidate, model, candidate.reference, spec, given, is_batched=False)


def _gated(
    candidate: Candidate,
    model: onnx.ModelProto,
    reference: Reference,
    spec: ImportSpec,
    given: Mapping[str, Array],
    *,
    is_batched: bool,
) -> Proved:
    declared = axes.declared_outputs(model)
    axes.forget_shapes(model)
    sampler = ExampleSampler(
        inputs_of(model),
        candidate.padded,
        _distributions(candidate, given),
        {
            (name, place): size
            for name, array in given.items()
            for place, size in enumerate(array.shape)
        },
    )
    if texts := _texts_of(model):
        sampler = replace(sampler, texts=[*texts, *sampler.texts])
    session = _open(candidate, model.SerializeToString())
    names = [value.name for value in model.graph.output]
    sampler = _with_maximum(candidate, runnable(sampler, reference.run), reference, spec)
    widths = axes.observed_widths(candidate.padded)
    shapeless = Gate(session, reference, sampler, dict.fromkeys(names, ()), 0.0)
    observed = [
        shapeless.run(axes.observe(sampler, rows, width))
        for rows, width in zip(axes.OBSERVED_ROWS, widths, strict=True)
    ]
    axes.name_outputs(model, declared, observed, sampler, widths)
    if spec.pictures is not None:
        reference = _classify(candidate, model, reference, spec, observed)
    if candidate.text is not None:
        reference = _name_probabilities(candidate, model, reference, observed)
    data = model.SerializeToString()
    candidate.remarks += source.check(model, data, candidate.external_data)
    outputs = {each.name: each.axes or () for each in map(spec_of, model.graph.output) if each}
    gate = Gate(_open(candidate, data), reference, sampler, outputs, _tolerance(candidate, spec))
    *scales, last = SCALES
    for scale in scales:
        scaled = replace(gate, sampler=replace(sampler, scale=scale))
        with suppress(SameRowsError):
            return Proved(data, scaled, scaled.prove(), is_batched)
    scaled = replace(gate, sampler=replace(sampler, scale=last))
    return Proved(data, scaled, scaled.prove(), is_batched)


def _open(candidate: Candidate, data: bytes) -> onnxruntime.InferenceSession:
    return runtime.open_session(data, external_data=candidate.external_data)


def _with_maximum(
    candidate: Candidate, sampler: ExampleSampler, reference: Reference, spec: ImportSpec
) -> ExampleSampler:
    """The sampler with a maximum of entries that the graph runs with, half as many if it must.

    ExportError if the maximum was specified, or if no row runs.
    """
    padded = candidate.padded
    entry_bytes = sum(
        array.nbytes for array in sampler.draw(1, np.random.default_rng(_SEED), 1).values()
    )
    while padded is not None and padded.maximum * entry_bytes <= _MOST_ROW_BYTES:
        inputs = sampler.draw(1, np.random.default_rng(_SEED), padded.maximum)
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
    return replace(sampler, padded=padded)


def _classify(
    candidate: Candidate,
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
    candidate: Candidate,
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


def _distributions(candidate: Candidate, given: Mapping[str, Array]) -> dict[str, Distribution]:
    distributions = {}
    for name, array in given.items():
        if array.dtype.kind in "iu" and array.size:
            distributions[name] = Distribution(float(array.min()), float(array.max()))
        elif array.dtype.kind == "f" and array.size and np.isfinite(array).all():
            distributions[name] = Distribution(
                mean=float(array.mean()), std=float(array.std()), is_normal=True
            )
    distributions |= {
        name: Distribution(low, high) for name, (low, high) in candidate.ranges.items()
    }
    return distributions


def _texts_of(model: onnx.ModelProto) -> list[str]:
    """Texts that nodes compare their inputs with, as an encoder's categories; the first hundred."""
    found = {
        text.decode(errors="replace"): None
        for node in model.graph.node
        for attribute in node.attribute
        for text in attribute.strings
    }
    return list(found)[:_MOST_TEXTS]


def _tolerance(candidate: Candidate, spec: ImportSpec) -> float:
    if spec.tolerance is not None:
        return spec.tolerance
    outputs = axes.declared_outputs(candidate.model).values()
    is_rounded = any(each.dtype == np.float16 for each in outputs)
    return max(_TOLERANCES[candidate.precision], _TOLERANCES["fp16"] if is_rounded else 0.0)
