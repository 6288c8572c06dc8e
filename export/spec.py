"""Export specification of a network: the facts that neither the network nor its graph contains."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from weir.bundle.contract import (
    Batching,
    Parity,
    Precision,
    Preprocessing,
    Provenance,
    Provider,
    Quantisation,
    Series,
    Sharing,
    Task,
    Tolerance,
    check_series,
)
from weir.bundle.golden import Golden
from weir.bundle.sequences import (
    PaddedAxis,
    Tokenisation,
    ValueRange,
    check_axes,
    check_tokenisation,
)
from weir.bundle.validation import field_errors
from weir.export.errors import ExportError
from weir.export.tokenizer_file import TokenizerFile


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """Specification of an export; the rest of the contract is measured or read from the graph.

    A dict with the keys of an object may stand for it, as in `padded_axes={"time": {…}}`.

    Attributes:
        architecture: a short name of the network.
        outputs: a name for each tensor that `forward` returns, in its order.
        task: the task service that the server offers, besides tensors in, tensors out.
        axes: names of the varying axes, by input and position. Axes of the same name vary
            together. By default the first axis of every input is the batch.
        batch_axis: the name of the axis along which requests are batched; None if each request must
            run alone.
        padded_axes: the axes along which rows differ in length, by name. The rows of the examples
            are padded to the longest.
        value_ranges: allowed values of integer inputs; by default the ids of the vocabulary.
        labels: a text for each index of an output's last axis, by output.
        vocabularies: an entry for each id, by input.
        preprocessing: the conversion of a picture into a row; None if there is none.
        tokenisation: the conversion of a text into a row; None if there is none.
        tokenizer: the bytes of the tokenizer.json that `tokenisation` names (`TokenizerFile` makes
            both).
        series: columns, lags and horizon of a forecast.
        batching: limits of the server's batches.
        tolerance: numbers agree if |onnx - torch| <= absolute + relative * |torch|; the default is
            for FP32 on a CPU. Integers and booleans must be equal.
        sharing: parameters and connections of the trained network, where the graph has others.
        examples: a description of the example inputs, for the record.
        training: the origin of the weights.
        commit: of the training code.
    """

    architecture: str
    outputs: Sequence[str]
    task: Task = "other"
    axes: Mapping[str, Mapping[int, str]] | None = None
    batch_axis: str | None = "batch"
    padded_axes: Mapping[str, PaddedAxis] = field(default_factory=dict)
    value_ranges: Mapping[str, ValueRange] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    vocabularies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    tokenisation: Tokenisation | None = None
    tokenizer: bytes | None = field(default=None, repr=False)
    series: Series | None = None
    batching: Batching = field(default_factory=Batching)
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(absolute=1e-5, relative=1e-5))
    sharing: Sharing | None = None
    examples: str = "given by the caller"
    training: Provenance | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        self._check_types()
        if self.task == "sequence-to-sequence":
            raise ExportError(
                "task: expected a task of one graph, got sequence-to-sequence; use `publish_pair`"
            )
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise ExportError(f"outputs: expected different names, got {list(self.outputs)}")
        for output, labels in self.labels.items():
            if output not in self.outputs:
                raise ExportError(
                    f"labels: expected an output of {list(self.outputs)}, got {output!r}"
                )
            _check_lines("labels", labels)
        for name, entries in self.vocabularies.items():
            _check_entries(name, entries)
        try:
            check_axes(self.padded_axes, self.ranges, self.batch_axis)
            check_tokenisation(self.task, self.tokenisation, self.vocabularies)
            check_series(self.task, self.series)
        except ValueError as error:
            raise ExportError(str(error)) from error
        for axis, padded in self.padded_axes.items():
            _check_carriers(axis, padded, self)
        if self.tokenisation is not None:
            _check_unknown(self.tokenisation, self.vocabularies)
        model = self.tokenisation.model if self.tokenisation else None
        if (model is None) != (self.tokenizer is None):
            got = "none" if self.tokenizer is None else f"{len(self.tokenizer)} bytes"
            raise ExportError(f"tokenizer: expected the file {model!r} of tokenisation, got {got}")

    @classmethod
    def for_texts(
        cls,
        tokenizer: TokenizerFile,
        *,
        architecture: str,
        outputs: Sequence[str],
        labels: Mapping[str, Sequence[str]],
    ) -> Self:
        """Specification of a classifier of texts that a tokenizer.json makes into token ids."""
        return cls(
            architecture=architecture,
            outputs=outputs,
            task="sequence-classification",
            axes=tokenizer.axes,
            batch_axis=tokenizer.batch_axis,
            padded_axes=tokenizer.padded_axes,
            value_ranges=tokenizer.value_ranges,
            labels=labels,
            tokenisation=tokenizer.tokenisation,
            tokenizer=tokenizer.file,
        )

    def _check_types(self) -> None:
        for name, adapter in _adapters().items():
            try:
                value = adapter.validate_python(getattr(self, name))
            except ValidationError as error:
                raise ExportError(field_errors(error, "ExportSpec", name)) from None
            # A dict has become the object that it stands for.
            object.__setattr__(self, name, value)

    @property
    def ranges(self) -> Mapping[str, ValueRange]:
        """Value ranges of integer inputs, including those with a vocabulary."""
        of_entries = {
            name: ValueRange(maximum=len(entries) - 1)
            for name, entries in self.vocabularies.items()
            if entries
        }
        return {**of_entries, **self.value_ranges}

    def axes_of(self, name: str) -> Mapping[int, str]:
        """The varying axes of an input, by position."""
        if self.axes is None:
            return {} if self.batch_axis is None else {0: self.batch_axis}
        return self.axes.get(name, {})

    def batch_position(self, name: str) -> int | None:
        """Position of the batch axis in an input, which must have it; None without a batch axis."""
        if self.batch_axis is None:
            return None
        for position, axis in self.axes_of(name).items():
            if axis == self.batch_axis:
                return position
        raise ExportError(f"{name}: expected an axis named {self.batch_axis!r}, got none")


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    """The validator of each field of an ExportSpec."""
    return {name: TypeAdapter(kind) for name, kind in get_type_hints(ExportSpec).items()}


def row_count(inputs: Mapping[str, Tensor], spec: ExportSpec) -> int:
    """Number of rows of the inputs, 1 without a batch axis; ExportError unless all agree."""
    counts = set()
    for name, tensor in inputs.items():
        for position in spec.axes_of(name):
            if not 0 <= position < tensor.ndim:
                raise ExportError(f"{name}: expected axes below {tensor.ndim}, got axis {position}")
        batch_position = spec.batch_position(name)
        counts.add(1 if batch_position is None else tensor.shape[batch_position])
    if len(counts) != 1 or counts == {0}:
        raise ExportError(f"example inputs: expected one number of rows, got {sorted(counts)}")
    return counts.pop()


def _check_lines(key: str, lines: Sequence[str]) -> None:
    if broken := [line for line in lines if "\n" in line]:
        raise ExportError(f"{key}: expected one line each, got {broken[0]!r}")


def _check_entries(name: str, entries: Sequence[str]) -> None:
    key = f"vocabularies: {name}"
    _check_lines(key, entries)
    if not entries:
        raise ExportError(f"{key}: expected an entry or more, got none")
    if repeated := [entry for entry, count in Counter(entries).items() if count > 1]:
        raise ExportError(f"{key}: expected each entry once, got {repeated[0]!r} again")


def _check_unknown(tokenisation: Tokenisation, vocabularies: Mapping[str, Sequence[str]]) -> None:
    unknown = tokenisation.unknown
    if unknown is None:
        return
    for name in (tokenisation.tokens, tokenisation.characters):
        if name is not None and unknown >= (size := len(vocabularies[name])):
            raise ExportError(
                f"tokenisation: unknown: expected an id of {name!r}, below {size}, got {unknown}"
            )


def _check_carriers(axis: str, padded: PaddedAxis, spec: ExportSpec) -> None:
    """Check that each input with the axis has a padding value, and that lengths have one axis."""
    carriers = sorted(name for name, axes in (spec.axes or {}).items() if axis in axes.values())
    if not carriers:
        example = {name: {0: spec.batch_axis, 1: axis} for name in padded.padding}
        raise ExportError(
            f"padded_axes: {axis}: expected the axis in `axes`, such as axes={example}, "
            f"got {spec.axes}"
        )
    if carriers != sorted(padded.padding):
        raise ExportError(
            f"padded_axes: {axis}: expected padding for the inputs with that axis, {carriers}, "
            f"got it for {sorted(padded.padding)}"
        )
    if padded.lengths is not None and spec.axes_of(padded.lengths) != {0: spec.batch_axis}:
        raise ExportError(
            f"padded_axes: {axis}: expected lengths with the axis {spec.batch_axis!r} alone, "
            f"got {padded.lengths!r} with {dict(spec.axes_of(padded.lengths))}"
        )
    if padded.mask is not None and spec.axes_of(padded.mask) != {0: spec.batch_axis, 1: axis}:
        raise ExportError(
            f"padded_axes: {axis}: expected a mask with the axes {spec.batch_axis!r} and {axis!r}, "
            f"got {padded.mask!r} with {dict(spec.axes_of(padded.mask))}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCandidate:
    """A graph that is not yet published, with its measurements.

    Attributes:
        model: the ONNX file.
        external_data: the files of its weights, by name, if it has 2 GiB or more.
        precision: of its weights and intermediate values.
        providers: the execution providers that may run it.
        tolerance: of the golden outputs on any machine.
        parity: its differences from PyTorch.
        golden: example rows and their expected outputs.
        quantisation: accuracy before and after INT8.
    """

    model: bytes
    precision: Precision = "fp32"
    providers: tuple[Provider, ...] = ("cpu", "cuda")
    tolerance: Tolerance
    parity: Parity
    golden: Golden
    quantisation: Quantisation | None = None
    external_data: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunExport:
    """The arguments of `publish` for a run: module, example rows and specification."""

    module: nn.Module
    examples: Mapping[str, Tensor]
    spec: ExportSpec
