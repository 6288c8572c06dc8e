"""The way from a network to a published bundle: convert, compare, pack, publish."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bundle import golden, reader, writer
from bundle.contract import Contract, Parity
from bundle.golden import Golden
from export import graph, parity, samples
from export.errors import ExportError
from export.spec import ExportSpec, row_count

GOLDEN_ROWS = 4
_RECORDED_PACKAGES = ("torch", "onnx", "onnxscript", "numpy")


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle that is now in a model repository."""

    path: Path
    version: int
    parity: Parity
    size_bytes: int


def publish(
    module: nn.Module,
    example_inputs: Mapping[str, Tensor],
    contract: ExportSpec,
    *,
    to: Path | str,
    name: str,
    version: int | None = None,
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

    Raises:
        ExportError: the arguments do not fit, torch cannot export, or (ParityError) the graph
            computes something else.
        BundleError: the name is not valid, or the version exists.
    """
    models = Path(to)
    writer.check_target(models, name, version)
    _check_arguments(module, example_inputs, contract)
    with _evaluating(module):
        files, text, measured = _make(module, example_inputs, contract)
    path = writer.write(files, text, models, name, version)
    return Published(path, int(path.name), measured, sum(map(len, files.values())))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each part's own mode again."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _Made(NamedTuple):
    files: dict[str, bytes]
    contract: Contract
    parity: Parity


def _make(module: nn.Module, example_inputs: Mapping[str, Tensor], contract: ExportSpec) -> _Made:
    """Everything a bundle consists of, proved; nothing is on disk yet."""
    model = graph.convert(module, example_inputs, contract)
    measured = parity.measure(module, model, samples.batches(example_inputs, contract), contract)
    recorded = _record(module, example_inputs, contract)
    _check_labels(recorded, contract)
    label_files = _name_label_files(contract)
    files = {
        reader.MODEL: model,
        golden.FILE_NAME: golden.encode(recorded),
        **{file: _lines(labels) for labels, file in label_files.items()},
    }
    return _Made(files, _contract(contract, measured, label_files), measured)


def _check_arguments(
    module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec
) -> None:
    if not example_inputs:
        raise ExportError("example inputs: expected at least one tensor, got none")
    for name, tensor in [*example_inputs.items(), *module.state_dict().items()]:
        if tensor.device.type != "cpu":
            raise ExportError(f"{name}: expected a tensor on the CPU, got {tensor.device}")
    row_count(example_inputs, spec)


def _record(module: nn.Module, example_inputs: Mapping[str, Tensor], spec: ExportSpec) -> Golden:
    """A few example rows and what PyTorch makes of them."""
    count = min(GOLDEN_ROWS, row_count(example_inputs, spec))
    inputs = samples.take(example_inputs, spec, 0, count)
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


def _name_label_files(spec: ExportSpec) -> dict[tuple[str, ...], str]:
    """A file for each different list of labels: outputs often share one."""
    different = dict.fromkeys(tuple(labels) for labels in spec.labels.values())
    return {
        labels: "labels.txt" if number == 0 else f"labels.{number}.txt"
        for number, labels in enumerate(different)
    }


def _lines(labels: tuple[str, ...]) -> bytes:
    return "".join(f"{label}\n" for label in labels).encode()


def _contract(
    spec: ExportSpec, measured: Parity, label_files: Mapping[tuple[str, ...], str]
) -> Contract:
    return Contract(
        task=spec.task,
        architecture=spec.architecture,
        batch_axis=spec.batch_axis,
        labels={output: label_files[tuple(labels)] for output, labels in spec.labels.items()},
        batching=spec.batching,
        tolerance=spec.tolerance,
        parity=measured,
        training=spec.training,
        versions=_versions(),
        commit=spec.commit,
    )


def _versions() -> dict[str, str]:
    versions = {package: installed_version(package) for package in _RECORDED_PACKAGES}
    # The distribution is called onnxruntime or onnxruntime-gpu; the module always tells.
    versions["onnxruntime"] = parity.RUNTIME_VERSION
    return {**versions, "torch": torch.__version__, "python": platform.python_version()}
