"""What an exporter must be told about a network, because the network itself cannot say it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
from weir.export.errors import ExportError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """The engineer's half of a bundle's contract; the rest is measured or read off the graph.

    Attributes:
        architecture: what the network is, in a word.
        outputs: a name for each tensor `forward` returns, in that order.
        task: what the server may offer beyond tensors in, tensors out.
        axes: the axes that vary, by input, position and name; those of the same name vary
            together. By default the first axis of every input is the batch.
        batch_axis: the name of the axis along which requests are put together; None if a
            network must see each request alone.
        padded_axes: those of `axes` along which rows differ in length, by name. Examples are given
            filled up to the longest row.
        value_ranges: what inputs of integers may hold; of one with a vocabulary its ids, by default.
        labels: a text for each index of an output's last axis, by output.
        vocabularies: an entry for each id, by input.
        preprocessing: how the server makes a row of a picture; None: it takes tensors only.
        tokenisation: how it makes a row of a text.
        series: which columns a forecast is made of, and how far it goes.
        batching: limits for the server.
        tolerance: two numbers agree when |onnx - torch| <= absolute + relative * |torch|;
            the default is for FP32 on a CPU. Integers and truth values must be equal.
        sharing: parameters and connections of the network as it was trained; none: those of the
            graph are all there is to show.
        examples: what the example inputs are, for the record.
        training: where the weights come from.
        commit: of the code that made them.
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
    series: Series | None = None
    batching: Batching = field(default_factory=Batching)
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(absolute=1e-5, relative=1e-5))
    sharing: Sharing | None = None
    examples: str = "given by the caller"
    training: Provenance | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        if self.task == "sequence-to-sequence":
            raise ExportError("task: expected that of one graph; `publish_pair` makes two of them")
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
            check_tokenisation(self.tokenisation, self.vocabularies)
            check_series(self.task, self.series)
        except ValueError as error:
            raise ExportError(str(error)) from error
        for axis, padded in self.padded_axes.items():
            _check_carriers(axis, padded, self)
        _check_unknown(self)

    @property
    def ranges(self) -> Mapping[str, ValueRange]:
        """What inputs of integers may hold, those with a vocabulary among them."""
        of_entries = {
            name: ValueRange(maximum=len(entries) - 1)
            for name, entries in self.vocabularies.items()
            if entries
        }
        return {**of_entries, **self.value_ranges}

    def axes_of(self, name: str) -> Mapping[int, str]:
        """The axes of an input that vary, by position."""
        if self.axes is None:
            return {} if self.batch_axis is None else {0: self.batch_axis}
        return self.axes.get(name, {})

    def batch_position(self, name: str) -> int | None:
        """Where an input has the batch axis; None if the network has no batch axis.

        Raises:
            ExportError: requests could not be put together, because this input lacks the axis.
        """
        if self.batch_axis is None:
            return None
        for position, axis in self.axes_of(name).items():
            if axis == self.batch_axis:
                return position
        raise ExportError(f"{name}: expected an axis named {self.batch_axis!r}, got none")


def row_count(inputs: Mapping[str, Tensor], spec: ExportSpec) -> int:
    """How many rows the inputs hold; 1 without a batch axis.

    Raises:
        ExportError: none, or not the same number in each input.
    """
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


def _check_carriers(axis: str, padded: PaddedAxis, spec: ExportSpec) -> None:
    """The inputs with this axis are those it has padding for; lengths have the batch axis alone."""
    carriers = sorted(name for name, axes in (spec.axes or {}).items() if axis in axes.values())
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


def _check_unknown(spec: ExportSpec) -> None:
    if spec.tokenisation is None:
        return
    unknown = spec.tokenisation.unknown
    for name in (spec.tokenisation.tokens, spec.tokenisation.characters):
        if name is not None and unknown >= (size := len(spec.vocabularies[name])):
            raise ExportError(
                f"tokenisation: unknown: expected an id of {name!r}, below {size}, got {unknown}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCandidate:
    """What an export comes down to.

    Attributes:
        model: the ONNX file.
        precision: of its weights and of the values inside.
        providers: those that may run it.
        tolerance: of the golden outputs, wherever they are replayed.
        parity: how far it is from PyTorch.
        golden: example rows and the outputs expected for them.
        quantisation: what INT8 cost.
    """

    model: bytes
    precision: Precision = "fp32"
    providers: tuple[Provider, ...] = ("cpu", "cuda")
    tolerance: Tolerance
    parity: Parity
    golden: Golden
    quantisation: Quantisation | None = None


@dataclass(frozen=True, slots=True)
class RunExport:
    """The network as it is served, rows to try it on, and what neither can say of itself."""

    module: nn.Module
    examples: Mapping[str, Tensor]
    spec: ExportSpec
