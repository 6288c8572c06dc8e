"""A served version of one graph: from a decoded message to its request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from weir.bundle.contract import Contract
from weir.protocol import inference_pb2 as pb
from weir.protocol import model_config_pb2 as config_pb
from weir.server.config import ModelSettings
from weir.server.preprocessing.tokenizer import BundleTokenizer
from weir.server.protocol import request_decoder
from weir.server.protocol.response_encoder import RequestedOutput, ResponseEncoder
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import Signature
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.request import InferRequest, ReceivedRequest, Request
from weir.server.scheduling.scheduler import Scheduler
from weir.server.telemetry.model_stats import ModelStats


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A served version of one graph; see `request.Model`. A reload makes another one.

    Attributes:
        name: that requests give; a graph of a pair ends in `.encoder` or `.decoder`.
        file: the graph, in the version's directory.
        contract: of this graph alone; None for a plain model, an ONNX file without one.
        labels: of outputs with labels, one a class.
        label_files: the file of each output's labels, as the model's configuration names it.
        stated_config: of a plain model's `config.pbtxt`.
        tokenizer: None if it takes no texts.
        all_outputs: the answer to a request that names no outputs.
        settings: the operator's, then those of a `config.pbtxt`.
        remembered_outputs: see `requested_outputs`.
        golden: the greatest difference from the recorded outputs at load; None for a plain model.
    """

    name: str
    version: str
    file: str
    contract: Contract | None
    signature: Signature
    rules: SequenceRules
    labels: Mapping[str, Sequence[str]]
    label_files: Mapping[str, str]
    stated_config: config_pb.ModelConfig | None
    tokenizer: BundleTokenizer | None
    all_outputs: Sequence[RequestedOutput]
    encoder: ResponseEncoder
    policy: BatchPolicy
    settings: ModelSettings
    provider: str
    threads: int
    instances: int
    scheduler: Scheduler
    stats: ModelStats
    remembered_outputs: dict[tuple[str, ...], Sequence[RequestedOutput]] = field(
        default_factory=dict
    )
    golden: float | None = None
    is_decoupled: bool = False

    def request(self, message: pb.ModelInferRequest, received: ReceivedRequest) -> InferRequest:
        """Decode and check a message; the request is not queued yet."""
        decoded = request_decoder.decode_request(
            message, self.signature, self.rules, finite_only=self.settings.non_finite == "reject"
        )
        outputs = (
            request_decoder.requested_outputs(message, self.signature, self.remembered_outputs)
            if message.outputs
            else self.all_outputs
        )
        deadline_s, arrived_s = received.deadline_s, received.arrived_s
        if decoded.timeout_s is not None:
            deadline_s = min(deadline_s, arrived_s + decoded.timeout_s)
        return Request(
            self.scheduler,
            self.stats,
            received.reply,
            inputs=decoded.inputs,
            fit=decoded.fit,
            encode=partial(self.encoder.encode_requested, message.id, outputs, self.labels),
            arrived_s=arrived_s,
            queued_s=arrived_s,
            deadline_s=deadline_s,
            request_bytes=len(received.payload),
            clock=received.clock,
        )
