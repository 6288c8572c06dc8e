"""Publication of a network as one graph: export, parity gate, reduced precision, bundle."""

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.bundle import golden, reader, writer
from weir.bundle.contract import Contract, Parity, Precision, Quantisation
from weir.bundle.golden import Golden
from weir.bundle.writer import lines_of, name_label_files, vocabulary_file
from weir.export import fp16, graph, int8, parity, runtime, samples, speed
from weir.export.errors import ExportError
from weir.export.int8 import DynamicInt8, StaticInt8
from weir.export.spec import ExportCandidate, ExportSpec, row_count
from weir.export.speed import Speed
from weir.profile import bundle_profile

logger = logging.getLogger(__name__)

Array = NDArray[Any]

GOLDEN_ROWS = 4
_RECORDED_PACKAGES = ("torch", "onnx", "onnxscript", "numpy")


@dataclass(frozen=True, slots=True)
class Published:
    """A published bundle: where it is, and how close it is to the network.

    Attributes:
        fixed_axes: by input, the positions of axes that have one size, and that size.
        advice: what of a run is avoidable, and how; a line for each kind. Of pretrained weights
            also what was taken of the file.
        speeds: of INT8 beside FP32, by batch size; empty for another precision.
    """

    path: Path
    version: int
    parity: Parity
    size_bytes: int
    precision: Precision = "fp32"
    quantisation: Quantisation | None = None
    fixed_axes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    advice: Sequence[str] = ()
    speeds: Sequence[Speed] = ()


def publish(
    module: nn.Module,
    example_inputs: Mapping[str, Tensor | Array],
    contract: ExportSpec,
    *,
    to: Path | str,
    name: str,
    version: int | None = None,
    precision: Literal["fp32", "fp16"] | StaticInt8 | DynamicInt8 = "fp32",
) -> Published:
    """Export a network, compare it with its graph, and publish it if they agree.

    If more than 3 % of a run is avoidable, a warning says how. If INT8 is slower than FP32 on this
    machine, a warning says so.

    Args:
        module: on the CPU; it is exported in eval mode and keeps the mode it has.
        example_inputs: tensors on the CPU or arrays, by the names of `forward`'s parameters, with a
            few rows along the batch axis; real ones are best.
        contract: the facts that neither the network nor its graph contains.
        to: the model repository; the bundle is `<to>/<name>/<version>/`.
        name: the model's name.
        version: its number; by default the next free one.
        precision: of weights and arithmetic; inputs and outputs keep their types. INT8 is given by
            the data to calibrate with and to measure accuracy on.

    Raises:
        ExportError: the arguments do not fit, or torch cannot export; ParityError: the graph's
            outputs differ; AccuracyError: INT8 costs too much.
        BundleError: the name is invalid, or the version exists.
    """
    writer.check_target(Path(to), name, version)
    _check_precision(precision)
    examples = _tensors(example_inputs)
    with evaluating(module):
        exact = export_exact(module, examples, contract)
        _check_outputs(exact.golden, contract)
        chosen = _reduce(exact, module, examples, contract, precision)
    speeds = _speeds(exact, chosen, contract) if chosen.quantisation else []
    fixed_axes = _fixed_axes(examples, contract)
    label_files = name_label_files(contract.labels)
    files = {
        reader.MODEL: chosen.model,
        **chosen.external_data,
        golden.FILE_NAME: golden.encode(chosen.golden),
        **{file: lines_of(labels) for labels, file in label_files.items()},
        **{
            vocabulary_file(key): lines_of(entries)
            for key, entries in contract.vocabularies.items()
        },
    }
    if contract.tokenisation and contract.tokenisation.model and contract.tokenizer:
        files[contract.tokenisation.model] = contract.tokenizer
    path = writer.write(files, _contract(contract, chosen, label_files), Path(to), name, version)
    return Published(
        path=path,
        version=int(path.name),
        parity=chosen.parity,
        size_bytes=sum(map(len, files.values())),
        precision=chosen.precision,
        quantisation=chosen.quantisation,
        fixed_axes=fixed_axes,
        advice=advise(path),
        speeds=speeds,
    )


def advise(path: Path) -> Sequence[str]:
    """What is avoidable in the graphs of a published bundle, logged; none if it is little."""
    lines = bundle_profile.advice(path)
    for line in lines:
        logger.warning("%s", line)
    return lines


def _speeds(exact: ExportCandidate, chosen: ExportCandidate, spec: ExportSpec) -> list[Speed]:
    """The speed of INT8 and FP32; a warning if INT8 is slower."""
    speeds = speed.compare(
        exact.model,
        chosen.model,
        exact.golden.inputs,
        list(chosen.golden.outputs),
        most_rows=None
        if spec.batch_axis is None
        else min(bundle_profile.MOST_ROWS, spec.batching.max_rows),
    )
    for each in speeds:
        if each.int8 < each.fp32:
            logger.warning(
                "int8 is slower than fp32 on this machine rows=%d int8_rows_per_s=%.0f "
                "fp32_rows_per_s=%.0f",
                each.rows, each.int8, each.fp32,
            )  # fmt: skip
    return speeds


def _tensors(inputs: Mapping[str, Tensor | Array]) -> dict[str, Tensor]:
    if not isinstance(inputs, Mapping):
        raise ExportError(
            "example inputs: expected tensors by the names of forward's parameters, such as "
            f"{{'x': tensor}}, got {type(inputs).__name__}"
        )
    tensors = {}
    for name, value in inputs.items():
        try:
            tensors[name] = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise ExportError(
                f"example inputs: {name}: expected a tensor or an array, got {type(value).__name__}"
            ) from None
    return tensors


def _fixed_axes(inputs: Mapping[str, Tensor], spec: ExportSpec) -> dict[str, dict[int, int]]:
    """The axes that have one size, logged; a warning if the specification says nothing of them."""
    fixed = {
        name: {at: size for at, size in enumerate(tensor.shape) if at not in spec.axes_of(name)}
        for name, tensor in inputs.items()
    }
    if any(fixed.values()):
        is_specified = spec.axes or spec.preprocessing or spec.series
        shapes = ", ".join(
            f"{name} {[axes.get(at, spec.batch_axis) for at in range(inputs[name].ndim)]}"
            for name, axes in fixed.items()
        )
        logger.log(
            logging.INFO if is_specified else logging.WARNING,
            "axes with a fixed size, as in the examples: %s; `axes` names those that vary",
            shapes,
        )
    return fixed


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and restore the mode of each part afterwards.

    Raises:
        ExportError: it is no module.
    """
    if not isinstance(module, nn.Module):
        raise ExportError(f"module: expected torch.nn.Module, got {type(module).__name__}")
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def export_exact(
    module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec
) -> ExportCandidate:
    """Export the network in FP32 through the parity gate; every other precision is made from it."""
    _check_arguments(module, example_inputs, spec)
    if spec.tokenizer is not None:
        _check_longest(module, example_inputs, spec)
    external_data: dict[str, bytes] = {}
    model = graph.convert(module, example_inputs, spec, external_data)
    batches = samples.batches(example_inputs, spec)
    measured = parity.measure(module, model, batches, spec, external_data)
    inputs = samples.spread(example_inputs, spec, GOLDEN_ROWS)
    recorded = Golden(
        inputs={name: tensor.numpy() for name, tensor in inputs.items()},
        outputs=parity.run_network(module, inputs, spec),
    )
    return ExportCandidate(
        model=model,
        external_data=external_data,
        tolerance=spec.tolerance,
        parity=measured,
        golden=recorded,
    )


def _check_longest(
    module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec
) -> None:
    """Raise ExportError unless the network takes a row of the maximum, and the greatest ids."""
    row = samples.longest(example_inputs, spec)
    greatest = {name: bounds.maximum for name, bounds in spec.ranges.items()}
    for name, value in greatest.items():
        row[name].view(-1)[0] = value
    try:
        parity.run_network(module, row, spec)
    except (IndexError, RuntimeError) as error:
        widths = {axis: padded.maximum for axis, padded in spec.padded_axes.items()}
        raise ExportError(
            f"forward: expected to take rows of {widths} and ids to {greatest}, got {error}"
        ) from error


def _reduce(
    exact: ExportCandidate,
    module: nn.Module,
    example_inputs: Mapping[str, Tensor],
    spec: ExportSpec,
    precision: Literal["fp32", "fp16"] | StaticInt8 | DynamicInt8,
) -> ExportCandidate:
    """The graph in the chosen precision, compared with the network."""
    if precision != "fp32" and exact.external_data:
        kind = precision if isinstance(precision, str) else "int8"
        raise ExportError(f"precision: expected fp32 for weights of 2 GiB and more, got {kind}")
    batches = samples.batches(example_inputs, spec)
    if isinstance(precision, StaticInt8 | DynamicInt8):
        reduced = int8.quantise(exact, precision, spec)
        # Recorded without a limit: the limit of INT8 is on accuracy.
        return replace(reduced, parity=parity.record(module, reduced.model, batches, spec))
    if precision == "fp16":
        model, tolerance = fp16.convert(exact.model), fp16.tolerance(exact.golden)
        loose = replace(spec, tolerance=tolerance)
        return replace(
            exact,
            model=model,
            precision="fp16",
            providers=("cuda",),
            tolerance=tolerance,
            parity=parity.measure(module, fp16.simulate(model), batches, loose),
        )
    return exact


def _check_arguments(
    module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec
) -> None:
    if not isinstance(spec, ExportSpec):
        raise ExportError(f"contract: expected ExportSpec, got {type(spec).__name__}")
    if not example_inputs:
        raise ExportError("example inputs: expected at least one tensor, got none")
    for name, tensor in [*example_inputs.items(), *module.state_dict().items()]:
        if tensor.device.type != "cpu":
            raise ExportError(f"{name}: expected a tensor on the CPU, got {tensor.device}")
    unknown = sorted({name for name in spec.axes or {} if name not in example_inputs})
    if unknown:
        raise ExportError(
            f"axes: expected inputs of the examples, {list(example_inputs)}, got {unknown}"
        )
    row_count(example_inputs, spec)
    samples.check_examples(example_inputs, spec)


def _check_precision(precision: object) -> None:
    if precision in ("fp32", "fp16") or isinstance(precision, StaticInt8 | DynamicInt8):
        return
    got = precision.__name__ if isinstance(precision, type) else repr(precision)
    raise ExportError(
        f"precision: expected 'fp32', 'fp16', StaticInt8(...) or DynamicInt8(...), got {got}"
    )


def _check_outputs(recorded: Golden, spec: ExportSpec) -> None:
    """Raise ExportError unless labels and series fit the shapes of the network's outputs."""
    for output, labels in spec.labels.items():
        shape = recorded.outputs[output].shape
        if not shape or shape[-1] != len(labels):
            raise ExportError(
                f"labels of {output}: expected one for each index of its last axis, "
                f"got {len(labels)} for shape {shape}"
            )
    if spec.series is None:
        return
    tensors = {**recorded.inputs, **recorded.outputs}
    try:
        spec.series.check_shapes({name: tensor.shape for name, tensor in tensors.items()})
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
    """Versions of Python and of the packages that make a bundle."""
    versions = {package: installed_version(package) for package in _RECORDED_PACKAGES}
    # The distribution is onnxruntime or onnxruntime-gpu; the module's own version is in both.
    versions["onnxruntime"] = runtime.VERSION
    return {**versions, "torch": torch.__version__, "python": platform.python_version()}
