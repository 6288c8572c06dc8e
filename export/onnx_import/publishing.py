"""Publication of an ONNX file as a bundle: servable graph, gate, precision, contract."""

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle import golden, reader, writer
from weir.bundle.contract import Contract, Parity, Precision, Quantisation, Source, Task
from weir.bundle.golden import Golden
from weir.bundle.tokenizer_json import FILE_NAME as TOKENIZER
from weir.bundle.writer import lines_of, name_label_files
from weir.export import runtime, speed
from weir.export.onnx_import import source
from weir.export.onnx_import.batching import Proved, prove
from weir.export.onnx_import.candidate import (
    Candidate,
    check_given,
    given_inputs,
    servable,
    value_ranges,
)
from weir.export.onnx_import.examples import BATCH, TIME
from weir.export.onnx_import.quantisation import quantise
from weir.export.onnx_import.spec import ImportSpec
from weir.export.speed import Speed
from weir.profile import bundle_profile, replacements

Array = NDArray[Any]

GOLDEN_ROWS = 4
_GOLDEN_SEED = 20_262
_RECORDED_PACKAGES = ("onnx", "numpy")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Imported:
    """A published bundle of an ONNX file.

    Attributes:
        remarks: what a user should know of the import, a line each.
        speeds: of INT8 beside FP32, by batch size; none for another precision.
    """

    path: Path
    version: int
    parity: Parity
    checks: Sequence[str]
    size_bytes: int
    precision: Precision
    quantisation: Quantisation | None
    remarks: Sequence[str]
    speeds: Sequence[Speed]


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
    candidate = servable(read, spec)
    given = given_inputs(candidate, spec)
    proved = prove(candidate, spec, given)
    precision = candidate.precision
    exact, quantisation = proved.data, None
    if spec.int8 is not None:
        proved, quantisation = quantise(proved, candidate, spec.int8)
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
        value_ranges=value_ranges(candidate),
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
        remarks=[*candidate.changes, *candidate.remarks, *_advice(path)],
        speeds=_speeds(exact, proved.data, recorded, spec) if spec.int8 else [],
    )


def _speeds(fp32: bytes, int8: bytes, recorded: Golden, spec: ImportSpec) -> list[Speed]:
    """The speed of INT8 and FP32, on the golden inputs; an INT8 model is always batched."""
    most_rows = min(bundle_profile.MOST_ROWS, spec.batching.max_rows)
    return speed.compare(fp32, int8, recorded.inputs, list(recorded.outputs), most_rows=most_rows)


def _advice(path: Path) -> list[str]:
    """What is avoidable of a run, and options of the import that avoid it."""
    lines = bundle_profile.advice(path)
    if any(replacements.BROADCAST.name in line for line in lines):
        lines.append(
            "or export the network without its normalisation: `weir import` writes it in front of "
            "the graph, with --image, --scale, --mean and --std"
        )
    return lines


def default_name(file: Path) -> str:
    """The model's name: the file's, or that of the folder of a `model.onnx`.

    Characters that no model's name has become `-`.
    """
    parts = [file.stem]
    if file.name == reader.MODEL:
        # In a repository, a version's number lies between: NAME/1/model.onnx.
        folders = [folder.name for folder in file.absolute().parents]
        parts = [name for name in folders if name and not name.isdecimal()][:1] or parts
    return _NOT_IN_A_NAME.sub("-", parts[0]).strip("-.") or "model"


def _record(
    proved: Proved, candidate: Candidate, spec: ImportSpec, given: Mapping[str, Array]
) -> tuple[Parity, Golden]:
    """Parity, and golden inputs with their outputs; outputs that were given are compared first."""
    check_given(given, candidate)
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
        inputs = gate.sampler.draw(GOLDEN_ROWS, generator)
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
                f"output {name}: some values are NaN for the example inputs; "
                "give --range or --golden"
            )
    return parity, Golden(inputs, recorded)


def _task(candidate: Candidate) -> Task:
    if candidate.preprocessing is not None:
        return "image-classification"
    return "other" if candidate.text is None else "sequence-classification"


def _versions() -> dict[str, str]:
    versions = {package: installed_version(package) for package in _RECORDED_PACKAGES}
    return {**versions, "onnxruntime": runtime.VERSION, "python": platform.python_version()}
