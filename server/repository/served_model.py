"""Served model of one graph: what a request needs of a version that is ready."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weir.bundle.contract import Contract
from weir.server.config import ModelSettings
from weir.server.preprocessing.tokenizer import Tokenizer
from weir.server.protocol.response_encoder import ResponseEncoder
from weir.server.repository.triton_config import TritonConfig
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import Signature
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.scheduler import Scheduler
from weir.server.telemetry.model_stats import ModelStats


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output to be sent; `classes` is set where its best classes are wanted as text."""

    name: str
    datatype: str
    classes: int | None = None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version that answers. Immutable: a reload makes another one.

    Attributes:
        name: that requests give, of a pair with `.encoder` or `.decoder`.
        file: the graph, in the version's directory.
        contract: of this graph alone; None for a plain model, an ONNX file without one.
        rules: of its inputs' values.
        labels: of the outputs that have some, one a class.
        tokenizer: of texts; None where the contract does not say how, and for a graph of a pair.
        all_outputs: what a request gets that asks for none in particular.
        policy: when its batches are cut.
        settings: the operator's word on it, or else that of a `config.pbtxt`.
        golden: the greatest difference from the recorded outputs when it was loaded; of a plain model None.
        config: of a plain model beside a `config.pbtxt`, what that says.
    """

    name: str
    version: str
    file: str
    contract: Contract | None
    signature: Signature
    rules: SequenceRules
    labels: Mapping[str, Sequence[str]]
    tokenizer: Tokenizer | None
    all_outputs: Sequence[WantedOutput]
    encoder: ResponseEncoder
    policy: BatchPolicy
    settings: ModelSettings
    provider: str
    scheduler: Scheduler
    metrics: ModelStats
    golden: float | None = None
    config: TritonConfig | None = None
