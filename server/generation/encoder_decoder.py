"""Encoder-decoder: two graphs as one model whose answers are decoded step by step.

`EncoderDecoder` joins the two graphs. `EncoderDecoderModel` is the served version: its engine, and
the way from a `ModelInfer` message to a request.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.bundle.decoding import Decoding
from weir.protocol import inference_pb2 as pb
from weir.server.config import ModelSettings
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.generation.decoder_batch import DecoderBatch, Row, Run
from weir.server.generation.engine import Engine
from weir.server.generation.request import (
    OUTPUTS,
    GenerationRequest,
    InferResponse,
    generation_request,
)
from weir.server.generation.sampling_parameters import SearchParameters, read_parameters
from weir.server.generation.slots import Layout
from weir.server.preprocessing.detokenizer import Detokenizer
from weir.server.preprocessing.tokenizer import BundleTokenizer
from weir.server.protocol import request_decoder
from weir.server.protocol.response_encoder import ResponseEncoder
from weir.server.runtime.io_binding import Device
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import Signature, TensorSpec
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.request import ReceivedRequest
from weir.server.telemetry.model_stats import ModelStats

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """One of the two graphs, loaded and verified by itself.

    Attributes:
        device: of a decoder whose rows' state stays in the memory of its device.
    """

    run: Run
    signature: Signature
    rules: SequenceRules
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class EncoderDecoder:
    """The two graphs and how rows pass through them.

    Attributes:
        lengths: the encoder's input of lengths; None if it has none.
        timed: the encoder's inputs with a time axis; lengths count the entries of the first.
    """

    contract: Contract
    decoding: Decoding
    encoder: Graph
    decoder: Graph
    layout: Layout
    lengths: str | None
    timed: Sequence[str]

    def decoder_batch(self, capacity: int) -> DecoderBatch:
        """An empty decoder batch with so many slots."""
        return DecoderBatch(
            self.layout,
            encode=self.encoder.run,
            decode=self.decoder.run,
            lengths=self.lengths,
            capacity=capacity,
            device=self.decoder.device,
        )

    def rows(
        self, inputs: Mapping[str, Array], search: SearchParameters, *, arrived_s: float = 0.0
    ) -> list[Row]:
        """The rows of a request, each cut to its own length."""
        count = len(next(iter(inputs.values())))
        return [self._row(inputs, number, search, arrived_s) for number in range(count)]

    def _row(
        self, inputs: Mapping[str, Array], number: int, search: SearchParameters, arrived_s: float
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
            limit=min(limit, search.max_tokens or limit),
            search=search,
            arrived_s=arrived_s,
        )

    def signature(self, max_rows: int) -> Signature:
        """The encoder's inputs, and the outputs of decoding."""
        encoder, batch = self.encoder.signature, self.contract.batch_axis
        return Signature(
            list(encoder.inputs.values()),
            [
                TensorSpec(name, datatype, (batch, *axes))
                for name, (datatype, axes) in OUTPUTS.items()
            ],
            batch_axis=batch,
            max_rows=max_rows,
            maxima=self.encoder.rules.maxima,
            optional=encoder.optional,
        )


def join_graphs(contract: Contract, encoder: Graph, decoder: Graph) -> EncoderDecoder:
    """Join two graphs that fit their contract.

    Raises:
        ModelLoadError: an input has a variable axis besides batch (first) and one time axis
        (second), or tokens or lengths are not INT64.
    """
    if contract.decoding is None:
        raise ModelLoadError("contract: expected decoding, got none")
    if len(contract.padded_axes) != 1:
        raise ModelLoadError(
            f"padded_axes: expected one for an encoder-decoder, got {sorted(contract.padded_axes)}"
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
    return EncoderDecoder(
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
    # Rows that differ along another axis could not share one array of slots.
    if strays := [
        axis for axis in spec.axes if not isinstance(axis, int) and axis not in (batch, time)
    ]:
        raise ModelLoadError(
            f"input {spec.name!r}: expected no variable axes but {batch!r} and {time!r}, "
            f"got {strays}"
        )
    if is_count and spec.datatype != "INT64":
        raise ModelLoadError(f"input {spec.name!r}: expected INT64, got {spec.datatype}")


@dataclass(frozen=True, slots=True)
class EncoderDecoderModel:
    """A served version of an encoder-decoder; see `scheduling.request.Model`. Immutable.

    Attributes:
        signature: the encoder's inputs, and the outputs of decoding.
        tokenizer: None if the contract has no `tokenisation`.
        policy: how many rows are encoded, and decoded, together.
        threads: within one operator of the decoder.
        golden: the greater of its graphs' differences from the recorded outputs at load. Its tokens
            do not differ.
    """

    name: str
    version: str
    contract: Contract
    graphs: EncoderDecoder
    signature: Signature
    rules: SequenceRules
    tokenizer: BundleTokenizer | None
    detokenizer: Detokenizer
    encoder: ResponseEncoder
    policy: BatchPolicy
    settings: ModelSettings
    provider: str
    threads: int
    scheduler: Engine
    stats: ModelStats
    golden: float
    instances: int = 1
    file: str = "encoder.onnx"
    stated_config: None = None
    is_decoupled: bool = True

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """None: its outputs are tokens."""
        return {}

    @property
    def label_files(self) -> Mapping[str, str]:
        """The file of each labelled output of its graphs."""
        return self.contract.labels

    def request(
        self, message: pb.ModelInferRequest, received: ReceivedRequest
    ) -> GenerationRequest:
        """Decode and check a message; the request is not queued yet."""
        search = read_parameters(message.parameters)
        self.check_search(search)
        decoded = request_decoder.decode_request(
            message, self.signature, self.rules, finite_only=self.settings.non_finite == "reject"
        )
        requested = _requested_outputs(message, self.signature)
        arrived_s, timeout_s = received.arrived_s, decoded.timeout_s or math.inf
        rows = self.graphs.rows(decoded.inputs, search, arrived_s=arrived_s)
        sends_tokens = received.send is not None and len(rows) == 1 and search.width == 1
        response = InferResponse(
            self.encoder,
            self.graphs.decoding.padding,
            message.id,
            requested,
            received.send if sends_tokens else None,
        )
        if sends_tokens:
            rows[0].on_token = response.send_token
        return generation_request(
            self.scheduler,
            self.stats,
            received.reply,
            rows,
            response,
            queued_s=arrived_s,
            deadline_s=min(received.deadline_s, arrived_s + timeout_s),
            request_bytes=len(received.payload),
            clock=received.clock,
        )

    def check_search(self, search: SearchParameters) -> None:
        """Refuse a search that needs more slots than the model has."""
        if search.slots > self.policy.max_rows:
            what = "results" if search.sampling else "beam_width"
            raise InvalidRequest(
                f"{what}: expected at most {self.policy.max_rows}, as model {self.name!r} decodes "
                f"so many rows together, got {search.slots}"
            )


def _requested_outputs(message: pb.ModelInferRequest, signature: Signature) -> list[str]:
    names = [output.name for output in message.outputs] or list(signature.outputs)
    signature.check_outputs(names)
    for output in message.outputs:
        if request_decoder.read_classification(output.name, output.parameters) is not None:
            raise InvalidRequest(f"output {output.name!r}: there are no classes to choose from")
    return names
