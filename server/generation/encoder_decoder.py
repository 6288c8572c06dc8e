"""Encoder and decoder as one, made of two graphs once each of them is proved.

Its own proof is the last: the recorded sources give the recorded tokens, each by itself, and all of them in one batch
of unequal lengths that is too small for them, so that rows join and leave between steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.bundle.decoding import Decoding
from weir.server.errors import ModelLoadError
from weir.server.generation.decoder_batch import Generation, Run
from weir.server.generation.row import Row
from weir.server.generation.sampling import Search
from weir.server.generation.slots import Layout
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import Signature, TensorSpec

Array = NDArray[Any]

OUTPUT_TOKENS, OUTPUT_LENGTHS = "output_tokens", "output_lengths"


@dataclass(frozen=True, slots=True)
class Graph:
    """One of the two, loaded and proved by itself."""

    run: Run
    signature: Signature
    rules: SequenceRules


@dataclass(frozen=True, slots=True)
class Pair:
    """Encoder and decoder, and what the contract says of them.

    Attributes:
        contract: the whole one.
        lengths: the encoder's input of lengths; None if it has none.
        timed: its inputs with a time axis, the one that lengths are counted along first.
    """

    contract: Contract
    decoding: Decoding
    encoder: Graph
    decoder: Graph
    layout: Layout
    lengths: str | None
    timed: Sequence[str]

    def generation(self, capacity: int) -> Generation:
        """Room for so many rows."""
        return Generation(
            self.layout,
            encode=self.encoder.run,
            decode=self.decoder.run,
            lengths=self.lengths,
            capacity=capacity,
        )

    def rows(
        self, inputs: Mapping[str, Array], search: Search, *, arrived_s: float = 0.0
    ) -> list[Row]:
        """The rows of a request, each cut to its own length.

        Args:
            inputs: of the encoder, complete and checked.
            search: that is wanted of each.
            arrived_s: when the request came.
        """
        count = len(next(iter(inputs.values())))
        return [self._row(inputs, number, search, arrived_s) for number in range(count)]

    def _row(
        self, inputs: Mapping[str, Array], number: int, search: Search, arrived_s: float
    ) -> Row:
        length = (
            int(inputs[self.lengths][number])
            if self.lengths is not None
            else inputs[self.timed[0]].shape[1]
        )
        limit = self.decoding.limit(length)
        return Row(
            number=number,
            inputs={
                name: array[number, :length] if name in self.timed else array[number]
                for name, array in inputs.items()
                if name != self.lengths
            },
            length=length,
            limit=min(limit, search.most_tokens or limit),
            search=search,
            arrived_s=arrived_s,
        )


def make_pair(contract: Contract, encoder: Graph, decoder: Graph) -> Pair:
    """The pair of two graphs that were held against their contract.

    Raises:
        ModelLoadError: it has other axes than batch and one time, or these elsewhere than first and second, or
            tokens or lengths of another type than INT64.
    """
    if contract.decoding is None:
        raise ModelLoadError("contract: expected decoding, got none")
    if len(contract.padded_axes) != 1:
        raise ModelLoadError(
            f"padded_axes: expected one for a pair, got {sorted(contract.padded_axes)}"
        )
    (name, axis), = contract.padded_axes.items()  # fmt: skip
    counts = {contract.decoding.previous, contract.decoding.lengths, axis.lengths}
    for graph in (encoder, decoder):
        for spec in graph.signature.inputs.values():
            _check_input(spec, contract.batch_axis, name, is_count=spec.name in counts)
    timed = [each for each in axis.padding if each in encoder.signature.inputs]
    lengths = axis.lengths if axis.lengths in encoder.signature.inputs else None
    if not timed:
        raise ModelLoadError(f"padded_axes: {name}: expected an input of the encoder, got none")
    return Pair(
        contract=contract,
        decoding=contract.decoding,
        encoder=encoder,
        decoder=decoder,
        layout=Layout(contract.decoding, axis.padding),
        lengths=lengths,
        timed=timed,
    )


def _check_input(spec: TensorSpec, batch: str | None, time: str, *, is_count: bool) -> None:
    if time in spec.axes and spec.axes.index(time) != 1:
        raise ModelLoadError(
            f"input {spec.name!r}: expected axis {time!r} second, got {list(spec.axes)}"
        )
    # Along any other axis rows of different sizes would have to share a slot's array.
    if strays := [
        axis for axis in spec.axes if not isinstance(axis, int) and axis not in (batch, time)
    ]:
        raise ModelLoadError(
            f"input {spec.name!r}: expected no variable axes but {batch!r} and {time!r}, got {strays}"
        )
    if is_count and spec.datatype != "INT64":
        raise ModelLoadError(f"input {spec.name!r}: expected INT64, got {spec.datatype}")
