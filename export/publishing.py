"""The way from a network to a published bundle: convert, compare, reduce, pack, publish."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from weir.bundle import golden, reader, writer
from weir.bundle.contract import Contract, Parity, Precision, Quantisation
from weir.bundle.golden import Golden
from weir.bundle.writer import lines_of, name_label_files, vocabulary_file
from weir.export import fp16, graph, int8_dynamic, int8_static, parity, runtime, samples
from weir.export.errors import ExportError
from weir.export.int8_dynamic import DynamicInt8
from weir.export.int8_static import StaticInt8
from weir.export.samples import check_examples
from weir.export.spec import ExportCandidate, ExportSpec, row_count

GOLDEN_ROWS = 4
_RECORDED_PACKAGES = ("torch", "onnx", "onnxscript", "numpy")


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle that is now in a model repository."""

    path: Path
    version: int
    parity: Parity
    size_bytes: int
    precision: Precision = "fp32"
    quantisation: Quantisation | None = None


def publish(
    module: nn.Module,
    example_inputs: Mapping[str, Tensor],
    contract: ExportSpec,
    *,
    to: Path | str,
    name: str,
    version: int | None = None,
    precision: Literal["fp32", "fp16"] | StaticInt8 | DynamicInt8 = "fp32",
) -> Published:
    """Export a network, compare it with its graph, and publish it if they agree.

    Args:
        module: on the CPU; it is exported in eval mode, and left in the mode it was in.
        example_inputs: tensors by the names of `forward`'s parameters, on the CPU, with a few
            rows along the batch axis: real ones, if there are any.
        contract: what neither the network nor its graph can say.
        to: the model repository, `<to>/<name>/<version>/` is made in it.
        name: the model's name.
        version: its number, the next free one by default.
        precision: of weights and of what is computed with them; data to fit it to, or to judge it
            by, asks for INT8. Inputs and outputs stay as they are.

    Raises:
        ExportError: the arguments do not fit, torch cannot export, or (ParityError) the graph
            computes something else, or (AccuracyError) INT8 costs too much.
        BundleError: the name is not valid, or the version exists.
    """
    models = Path(to)
    writer.check_target(models, name, version)
    check_arguments(module, example_inputs, contract)
    with evaluating(module):
        chosen = _make(module, example_inputs, contract, precision)
    label_files = name_label_files(contract.labels)
    files = {
        reader.MODEL: chosen.model,
        golden.FILE_NAME: golden.encode(chosen.golden),
        **{file: lines_of(labels) for labels, file in label_files.items()},
        **{
            vocabulary_file(name): lines_of(entries)
            for name, entries in contract.vocabularies.items()
        },
    }
    path = writer.write(files, _contract(contract, chosen, label_files), models, name, version)
    return Published(
        path=path,
        version=int(path.name),
        parity=chosen.parity,
        size_bytes=sum(map(len, files.values())),
        precision=chosen.precision,
        quantisation=chosen.quantisation,
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each part's own mode again."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _make(
    module: nn.Module,
    example_inputs: Mapping[str, Tensor],
    spec: ExportSpec,
    precision: Literal["fp32", "fp16"] | StaticInt8 | DynamicInt8,
) -> ExportCandidate:
    """The graph and all that is said of it, proved; nothing is on disk yet."""
    exact = export_exact(module, example_inputs, spec)
    _check_labels(exact.golden, spec)
    _check_series(exact.golden, spec)
    batches = samples.batches(example_inputs, spec)
    if isinstance(precision, StaticInt8 | DynamicInt8):
        if isinstance(precision, StaticInt8):
            reduced = int8_static.quantise(exact, precision)
        else:
            reduced = int8_dynamic.quantise(exact, precision, spec)
        # Recorded, not judged: what INT8 may cost is measured in answers, not in digits.
        return replace(reduced, parity=parity.record(module, reduced.model, batches, spec))
    if precision == "fp16":
        return _in_half(exact, module, batches, spec)
    return exact


def export_exact(
    module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec
) -> ExportCandidate:
    """The network as it is, in FP32; whatever else is made of it comes through this gate first."""
    model = graph.convert(module, example_inputs, spec)
    measured = parity.measure(module, model, samples.batches(example_inputs, spec), spec)
    recorded = _record(module, example_inputs, spec)
    return ExportCandidate(model=model, tolerance=spec.tolerance, parity=measured, golden=recorded)


def _in_half(
    exact: ExportCandidate,
    module: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    spec: ExportSpec,
) -> ExportCandidate:
    model = fp16.convert(exact.model)
    tolerance = fp16.tolerance(exact.golden)
    loose = replace(spec, tolerance=tolerance)
    return replace(
        exact,
        model=model,
        precision="fp16",
        providers=("cuda",),
        tolerance=tolerance,
        parity=parity.measure(module, fp16.simulate(model), batches, loose),
    )


def check_arguments(
    module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec
) -> None:
    """Raise ExportError unless module and examples are what `spec` says."""
    if not example_inputs:
        raise ExportError("example inputs: expected at least one tensor, got none")
    for name, tensor in [*example_inputs.items(), *module.state_dict().items()]:
        if tensor.device.type != "cpu":
            raise ExportError(f"{name}: expected a tensor on the CPU, got {tensor.device}")
    row_count(example_inputs, spec)
    missing = sorted({name for name in spec.axes or {} if name not in example_inputs})
    if missing:
        raise ExportError(f"example inputs: expected those with axes, {missing} too")
    check_examples(example_inputs, spec)


def _record(module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec) -> Golden:
    """A few example rows, of unequal lengths where rows have some, and what PyTorch makes of them."""
    inputs = samples.spread(example_inputs, spec, GOLDEN_ROWS)
    return Golden(
        inputs={name: tensor.numpy() for name, tensor in inputs.items()},
        outputs=parity.run_network(module, inputs, spec),
    )


def _check_labels(recorded: Golden, spec: ExportSpec) -> None:
    for output, labels in spec.labels.items():
        shape = recorded.outputs[output].shape
        if not shape or shape[-1] != len(labels):
            raise ExportError(
                f"labels of {output}: expected one for each index of its last axis, "
                f"got {len(labels)} for shape {shape}"
            )


def _check_series(recorded: Golden, spec: ExportSpec) -> None:
    series = spec.series
    if series is None:
        return
    tensors = {**recorded.inputs, **recorded.outputs}
    try:
        series.check_shapes({name: tensor.shape for name, tensor in tensors.items()})
    except ValueError as error:
        raise ExportError(str(error)) from error


def _contract(
    spec: ExportSpec, chosen: ExportCandidate, label_files: Mapping[tuple[str, ...], str]
) -> Contract:
    return Contract(
        task=spec.task,
        architecture=spec.architecture,
        batch_axis=spec.batch_axis,
        padded_axes=dict(spec.padded_axes),
        value_ranges=dict(spec.ranges),
        labels={output: label_files[tuple(labels)] for output, labels in spec.labels.items()},
        vocabularies={name: vocabulary_file(name) for name in spec.vocabularies},
        preprocessing=spec.preprocessing,
        tokenisation=spec.tokenisation,
        series=spec.series,
        batching=spec.batching,
        precision=chosen.precision,
        providers=list(chosen.providers),
        tolerance=chosen.tolerance,
        parity=chosen.parity,
        quantisation=chosen.quantisation,
        sharing=spec.sharing,
        training=spec.training,
        versions=recorded_versions(),
        commit=spec.commit,
    )


def recorded_versions() -> dict[str, str]:
    """Of the packages that make a bundle, for the record."""
    versions = {package: installed_version(package) for package in _RECORDED_PACKAGES}
    # The distribution is called onnxruntime or onnxruntime-gpu; the module always tells.
    versions["onnxruntime"] = runtime.VERSION
    return {**versions, "torch": torch.__version__, "python": platform.python_version()}
