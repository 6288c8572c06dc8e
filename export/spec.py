"""What an exporter must be told about a network, because the network itself cannot say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from bundle.contract import Batching, Preprocessing, Provenance, Task, Tolerance
from export.errors import ExportError


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
        labels: a text for each index of an output's last axis, by output.
        preprocessing: how the server makes a row of a picture; None: it takes tensors only.
        batching: limits for the server.
        tolerance: two numbers agree when |onnx - torch| <= absolute + relative * |torch|;
            the default is for FP32 on a CPU. Integers and truth values must be equal.
        examples: what the example inputs are, for the record.
        training: where the weights come from.
        commit: of the code that made them.
    """

    architecture: str
    outputs: Sequence[str]
    task: Task = "other"
    axes: Mapping[str, Mapping[int, str]] | None = None
    batch_axis: str | None = "batch"
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    batching: Batching = field(default_factory=Batching)
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(absolute=1e-5, relative=1e-5))
    examples: str = "given by the caller"
    training: Provenance | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise ExportError(f"outputs: expected different names, got {list(self.outputs)}")
        for output, labels in self.labels.items():
            if output not in self.outputs:
                raise ExportError(
                    f"labels: expected an output of {list(self.outputs)}, got {output!r}"
                )
            if broken := [label for label in labels if "\n" in label]:
                raise ExportError(f"labels: expected one line each, got {broken[0]!r}")

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
