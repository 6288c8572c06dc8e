"""Generation: a text to a request of `Generate`, and its stream of tokens up to the result."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypedDict, Unpack

import grpc
import numpy as np

from weir.client.connection import CallContext, Stream
from weir.client.errors import Internal, UsageError
from weir.client.results import Generated, GeneratedToken, Hypothesis
from weir.client.rpc import Version, parse
from weir.client.tasks import SERVICE, Text, text_message
from weir.protocol import tasks_pb2 as pb

GENERATE = f"/{SERVICE}/Generate"
# The wire carries 64 bits; many random number generators take a signed seed.
_SEED_BITS = 63
_NO_RESULT = "expected a result at the end of the stream, got none"


@dataclass(frozen=True, slots=True)
class Beam:
    """Beam search: keep the `width` likeliest sequences at each step.

    A hypothesis scores its log-probability divided by ((5 + tokens) / 6) ** `length_power`; None
    takes the server's default.
    """

    width: int
    length_power: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampling: draw tokens by their probabilities.

    Log-probabilities are divided by the `temperature`. `top_k` draws among the k likeliest tokens,
    0 among all. Equal seeds draw equal tokens; None draws a seed.
    """

    temperature: float = 1.0
    top_k: int = 0
    seed: int | None = None


class GenerateOptions(TypedDict, total=False):
    """Options of a generation.

    Attributes:
        search: by default greedy, the likeliest token at every step.
        n_best: number of hypotheses, 1 by default.
        max_tokens: the most tokens to generate; by default the bundle's limit.
        attention: whether each hypothesis carries its attention weights.
        version: the model's version or a label of it, by default the server's choice.
    """

    search: Beam | Sample | None
    n_best: int
    max_tokens: int
    attention: bool
    version: Version


def generate_request(model: str, text: Text, **options: Unpack[GenerateOptions]) -> bytes:
    """The request bytes of a generation; UsageError if a number is out of range."""
    request = pb.GenerateRequest(
        model_name=model,
        model_version=str(options.get("version", "")),
        text=text_message(text),
        attention=options.get("attention", False),
    )
    search = options.get("search")
    try:
        request.n_best = options.get("n_best", 1)
        request.max_tokens = options.get("max_tokens", 0)
        match search:
            case Beam():
                beam = pb.GenerateRequest.Beam(width=search.width, length_power=search.length_power)
                request.beam.CopyFrom(beam)
            case Sample():
                seed = secrets.randbits(_SEED_BITS) if search.seed is None else search.seed
                sample = pb.GenerateRequest.Sample(
                    temperature=search.temperature, top_k=search.top_k, seed=seed
                )
                request.sample.CopyFrom(sample)
            case None:
                request.greedy.SetInParent()
    except ValueError as error:
        raise UsageError(f"generate: {error}") from error
    return request.SerializeToString()


def read_message(body: bytes | None) -> GeneratedToken | Generated:
    """A token or the result from a message; Internal for another one, and for the end (None)."""
    if body is None:
        raise Internal(_NO_RESULT)
    message = parse(pb.GenerateResponse, body)
    match message.WhichOneof("content"):
        case "token":
            token = message.token
            return GeneratedToken(token.token, token.text, token.log_probability)
        case "result" if message.result.hypotheses:
            return _result(message.result)
    raise Internal("expected a token or a result of hypotheses, got neither")


class Generation:
    """A running generation: iterate over its tokens, take its `result()`, or both.

    Tokens arrive one by one only with a single hypothesis and no beam. A generation that is garbage
    collected is cancelled.
    """

    def __init__(self, call: Stream, context: CallContext) -> None:
        self._call = call
        self._context = context
        self._bodies = iter(call)
        self._result: Generated | None = None

    def __iter__(self) -> Iterator[GeneratedToken]:
        return self

    def __next__(self) -> GeneratedToken:
        """The next token; a failure raises a leaf of `weir.CallError`."""
        if self._result is not None:
            raise StopIteration
        with self._context:
            message = read_message(next(self._bodies, None))
        if isinstance(message, GeneratedToken):
            return message
        self._result = message
        # Only the status is left. Dropped before it arrives, the call would count as cancelled.
        with suppress(grpc.RpcError):
            next(self._bodies, None)
        raise StopIteration

    def result(self) -> Generated:
        """The complete result, once it is there; tokens not taken yet are skipped."""
        for _ in self:
            pass
        if self._result is None:
            raise Internal(_NO_RESULT)
        return self._result

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class AsyncGeneration:
    """A running generation of an asyncio client; otherwise as `Generation`."""

    def __init__(
        self, call: "grpc.aio.UnaryStreamCall[bytes, bytes]", context: CallContext
    ) -> None:
        self._call = call
        self._context = context
        self._bodies = aiter(call)
        self._result: Generated | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GeneratedToken:
        """The next token; a failure raises a leaf of `weir.CallError`."""
        if self._result is not None:
            raise StopAsyncIteration
        with self._context:
            message = read_message(await anext(self._bodies, None))
        if isinstance(message, GeneratedToken):
            return message
        self._result = message
        with suppress(grpc.aio.AioRpcError):
            await anext(self._bodies, None)
        raise StopAsyncIteration

    async def result(self) -> Generated:
        """The complete result, once it is there; tokens not taken yet are skipped."""
        async for _ in self:
            pass
        if self._result is None:
            raise Internal(_NO_RESULT)
        return self._result

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


def _result(result: pb.GenerateResponse.Result) -> Generated:
    return Generated(
        model=result.model_name,
        version=result.model_version,
        hypotheses=[_hypothesis(each, len(result.source)) for each in result.hypotheses],
        source=list(result.source),
        unknown=list(result.unknown),
    )


def _hypothesis(hypothesis: pb.GenerateResponse.Hypothesis, width: int) -> Hypothesis:
    steps = [step.weights for step in hypothesis.attention]
    if any(len(weights) != width for weights in steps):
        raise Internal(f"expected {width} weights of attention a step, got others")
    return Hypothesis(
        text=hypothesis.text,
        tokens=list(hypothesis.tokens),
        log_probability=hypothesis.log_probability,
        score=hypothesis.score,
        is_complete=hypothesis.is_complete,
        attention=np.array(steps, np.float32) if steps else None,
    )
