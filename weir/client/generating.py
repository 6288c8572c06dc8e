"""Answers token by token on the wire: a text → the request of `Generate`, and each message of its stream."""

import secrets
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np

from weir.client.errors import Internal, UsageError
from weir.client.pictures import SERVICE
from weir.client.results import Generated, GeneratedToken, Hypothesis
from weir.client.texts import Text, load_one
from weir.client.wire import Version, parse
from weir.protocol.weir.v1 import tasks_pb2 as pb

GENERATE = f"/{SERVICE}/Generate"
# The wire has 64, which many generators of random numbers, signed inside, have not.
_SEED_BITS = 63


@dataclass(frozen=True, slots=True)
class Beam:
    """Search for the best sequences among those that were always among the `width` likeliest.

    A sum of log-probabilities is divided by ((5 + tokens) / 6) ** `length_power`; None: the server's.
    """

    width: int
    length_power: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Draw tokens by their probabilities.

    Log-probabilities are divided by the `temperature`. `top_k`: only among so many likeliest, 0 among
    all. Equal seeds draw equal tokens; None draws a seed.
    """

    temperature: float = 1.0
    top_k: int = 0
    seed: int | None = None


class GenerateOptions(TypedDict, total=False):
    """How an answer is made.

    Attributes:
        search: by default the likeliest token at every step.
        n_best: how many hypotheses are wanted, 1 by default.
        max_tokens: most tokens that are made; by default as many as the bundle allows.
        attention: whether each hypothesis tells where its steps looked.
        version: the model's version or a label of it, by default the server's choice.
    """

    search: Beam | Sample | None
    n_best: int
    max_tokens: int
    attention: bool
    version: Version


def generate_request(model: str, text: Text, **options: Unpack[GenerateOptions]) -> bytes:
    """The bytes that ask for an answer.

    Raises:
        UsageError: a number that none can be.
    """
    request = pb.GenerateRequest(
        model_name=model,
        model_version=str(options.get("version", "")),
        text=load_one(text),
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


def read_message(body: bytes) -> GeneratedToken | Generated:
    """A token, or the result, from its bytes; Internal if they are neither."""
    message = parse(pb.GenerateResponse, body)
    match message.WhichOneof("content"):
        case "token":
            token = message.token
            return GeneratedToken(token.token, token.text, token.log_probability)
        case "result" if message.result.hypotheses:
            return _result(message.result)
    raise Internal("expected a token or a result of hypotheses, got neither")


def no_result() -> Internal:
    """What is raised where a stream ends too early."""
    return Internal("expected a result at the end of the stream, got none")


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
