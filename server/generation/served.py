"""An encoder-decoder that answers as a whole, and what it takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.protocol import inference_pb2 as pb
from weir.server.config import ModelSettings
from weir.server.errors import InvalidRequest
from weir.server.generation.encoder_decoder import OUTPUT_LENGTHS, OUTPUT_TOKENS, Pair
from weir.server.generation.engine import Engine
from weir.server.generation.row import Row
from weir.server.generation.sampling import Search
from weir.server.preprocessing.detokenizer import Detokenizer
from weir.server.preprocessing.tokenizer import Tokenizer
from weir.server.protocol.model_metadata import ModelDescription
from weir.server.protocol.response_encoder import ResponseEncoder
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import Signature, TensorSpec
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.request import ReadyRequest, ReceivedRequest
from weir.server.telemetry.model_stats import ModelStats

Array = NDArray[Any]

SCORES = "scores"
_OUTPUTS = ((OUTPUT_TOKENS, "INT64", ("steps",)), (OUTPUT_LENGTHS, "INT64", ()), (SCORES, "FP32", ()))  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServedPair:
    """An encoder-decoder that answers. Immutable: a reload makes another one.

    Attributes:
        contract: the whole one.
        signature: the encoder's inputs, and what is made of them.
        rules: of the inputs' values.
        tokenizer: of texts; None where the contract does not say how.
        detokenizer: of answers.
        policy: how many rows may be encoded, and decoded, together.
        scheduler: in whose place the engine stands.
        golden: the greater of its graphs' differences from what was recorded; its tokens do not differ.
    """

    name: str
    version: str
    contract: Contract
    pair: Pair
    signature: Signature
    rules: SequenceRules
    tokenizer: Tokenizer | None
    detokenizer: Detokenizer
    encoder: ResponseEncoder
    policy: BatchPolicy
    settings: ModelSettings
    provider: str
    scheduler: Engine
    metrics: ModelStats
    golden: float
    file: str = "encoder.onnx"

    @property
    def description(self) -> ModelDescription:
        """The properties that metadata and configuration report."""
        return ModelDescription(
            name=self.name,
            file=self.file,
            signature=self.signature,
            max_batch_rows=self.policy.max_rows,
            max_queue_delay_s=self.policy.max_queue_delay_s,
            max_queue_rows=self.settings.max_queue_rows or 0,
            instances=self.settings.instances or 1,
            provider=self.provider,
            label_files=self.contract.labels,
            is_batched=True,
            is_decoupled=True,
        )

    def request(self, message: pb.ModelInferRequest, received: ReceivedRequest) -> ReadyRequest:
        """Decode and check a message; the request is not queued yet.

        Raises:
            InvalidRequest: the message does not fit the model.
        """
        # The request names its model, so the two modules need each other.
        from weir.server.generation.request import read_request  # noqa: PLC0415

        return read_request(message, self, received)


def signature_of(pair: Pair, max_rows: int) -> Signature:
    """What a request for the whole pair takes and gives."""
    encoder, batch = pair.encoder.signature, pair.contract.batch_axis
    return Signature(
        list(encoder.inputs.values()),
        [TensorSpec(name, datatype, (batch, *axes)) for name, datatype, axes in _OUTPUTS],
        batch_axis=batch,
        max_rows=max_rows,
        maxima=pair.encoder.rules.maxima,
        optional=encoder.optional,
    )


def check_search(search: Search, model: ServedPair) -> None:
    """Refuse a search that has no room in the model's slots.

    Raises:
        InvalidRequest: a beam too wide, or too many samples.
    """
    if search.slots > model.policy.max_rows:
        what = "results" if search.draw else "beam_width"
        raise InvalidRequest(
            f"{what}: expected at most {model.policy.max_rows}, as model {model.name!r} decodes "
            f"so many rows together, got {search.slots}"
        )


def outputs_of(rows: Sequence[Row], padding: int) -> dict[str, Array]:
    """The best answer of each row, as tensors."""
    best = [row.answers[0] for row in rows]
    counts = np.array([len(answer.tokens) for answer in best], np.int64)
    tokens = np.full((len(rows), int(counts.max())), padding, np.int64)
    for place, answer in enumerate(best):
        tokens[place, : len(answer.tokens)] = answer.tokens
    scores = np.array([answer.score for answer in best], np.float32)
    return {OUTPUT_TOKENS: tokens, OUTPUT_LENGTHS: counts, SCORES: scores}
