"""Served encoder-decoders, and a client that reads their streams."""

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from tests.helpers import pairs
from tests.helpers.encoder_decoders import SOURCE, TARGET, network, sources
from tests.integration.harness import (
    ANSWER_S,
    TASKS,
    Array,
    Client,
    Server,
    arrays,
    request,
    tensor,
)
from weir.bundle import writer
from weir.bundle.golden import encode
from weir.bundle.reader import read
from weir.bundle.sequences import Tokenisation
from weir.export.seq2seq.publishing import publish_pair
from weir.export.seq2seq.spec import PairSpec
from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb

LISTENED = 5
"""Tokens read of an endless answer."""


MAX_STEPS = 12
"""Of an answer of `pair` or `plain`, the end token included."""


def publish(models: Path) -> None:
    """`pair` with attention and `plain` without, from PyTorch, and `endless`."""
    examples = dict(zip(("tokens", "lengths"), sources(24), strict=True))
    spec = PairSpec(
        architecture="gru",
        maximum_source_steps=12,
        maximum_steps=MAX_STEPS,
        source_vocabulary=SOURCE,
        target_vocabulary=TARGET,
        tokenisation=Tokenisation(rule="letters", lower=True, unknown=1),
        detokenisation="spaces",
    )
    with torch.random.fork_rng():
        publish_pair(network(), examples, spec, to=models, name="pair")
        publish_pair(network(attends=False), examples, spec, to=models, name="plain")
    publish_endless(models)


def publish_endless(models: Path) -> None:
    """`endless`, made of a few operators: no export, which takes seconds."""
    files = {
        "encoder.onnx": pairs.long_winded_encoder(),
        "decoder.onnx": pairs.decoder(),
        "golden.npz": encode(pairs.WHOLE_GOLDEN),
        "golden.encoder.npz": encode(pairs.ENCODER_GOLDEN),
        "golden.decoder.npz": encode(pairs.DECODER_GOLDEN),
        **pairs.VOCABULARIES,
    }
    writer.write(files, pairs.speaking(pairs.LONG_WINDED), models, "endless")


def asking(model: str, tokens: Sequence[int], request_id: str = "", **parameters: Any) -> bytes:
    """A request of one row."""
    message = request(model, tensor("tokens", np.array([tokens], np.int64)), id=request_id)
    for name, value in parameters.items():
        kind = "double_param" if isinstance(value, float) else "int64_param"
        setattr(message.parameters[name], kind, value)
    return message.SerializeToString()


def generate(client: Client, text: str, timeout: float | None = ANSWER_S, **fields: Any) -> Any:
    """Start `Generate` on `endless`, whose answer has no end if the text has a z."""
    message = tasks_pb.GenerateRequest(
        model_name="endless", text=tasks_pb.Text(text=text), **fields
    )
    method: Any = client.channel.unary_stream(
        f"/{TASKS}/Generate", response_deserializer=tasks_pb.GenerateResponse.FromString
    )
    return method(message.SerializeToString(), timeout=timeout)


def rows_left(server: Server) -> float:
    """Rows of `endless` that ended since their client left.

    A client gives its call up at the deadline. If the server heard of the call late, because the
    machine is busy, that is a cancellation.
    """
    return sum(
        server.metric("weir_generation_finished_total", model="endless", reason=reason)
        for reason in ("cancelled", "deadline")
    )


def recorded(models: Path, name: str) -> tuple[Array, Array, list[list[int]]]:
    """Sources, their lengths, and PyTorch's answers."""
    golden = read(models / name / "1").golden()
    assert golden is not None
    lengths = golden.outputs["output_lengths"]
    answers = zip(golden.outputs["output_tokens"].tolist(), lengths, strict=True)
    return (
        golden.inputs["tokens"],
        golden.inputs["lengths"],
        [tokens[:length] for tokens, length in answers],
    )


@dataclass
class StreamedAnswer:
    """The answer that a stream sent to one request."""

    tokens: list[int] = field(default_factory=list)
    finals: list[bool] = field(default_factory=list)
    error: str = ""
    status: str = ""
    score: float = 0.0


class Stream:
    """One `ModelStreamInfer`; the test sends its requests."""

    def __init__(self, client: Client, **options: Any) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.answers: dict[str, StreamedAnswer] = {}
        self.call = client.stream(self._sent(), **{"timeout": ANSWER_S, **options})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._requests.put(None)
        self.call.cancel()

    def ask(self, *args: Any, **parameters: Any) -> None:
        self._requests.put(asking(*args, **parameters))

    def finish(self) -> None:
        """Send no more requests, and read the remaining responses."""
        self._requests.put(None)
        for response in self.call:
            self._hear(response)

    def read(self, count: int) -> str:
        """Read so many responses; returns the id of the last."""
        for _ in range(count):
            last = self._hear(next(self.call))
        return last

    def read_until_ended(self, request_id: str) -> StreamedAnswer:
        """Read until a request has its last response."""
        while not ((one := self.answers.get(request_id)) and (one.error or True in one.finals)):
            self.read(1)
        return one

    def _sent(self) -> Iterator[bytes]:
        while (message := self._requests.get()) is not None:
            yield message

    def _hear(self, response: pb.ModelStreamInferResponse) -> str:
        answer = response.infer_response
        one = self.answers.setdefault(answer.id, StreamedAnswer())
        assert not (one.error or True in one.finals), f"{answer.id} had ended before"
        if response.error_message:
            one.error = response.error_message
            one.status = answer.parameters["grpc_status"].string_param
            return str(answer.id)
        outputs = arrays(answer)
        assert outputs["output_tokens"].shape == (1, outputs["output_lengths"][0])
        one.tokens += outputs["output_tokens"][0].tolist()
        one.finals.append(answer.parameters["triton_final_response"].bool_param)
        one.score = float(outputs["scores"][0])
        return str(answer.id)
