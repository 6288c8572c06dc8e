"""Search and sampling parameters of a request: from a `ModelInferRequest` or a `GenerateRequest`.

Parameters of a `ModelInferRequest`, beside its tensors:

    max_tokens      most tokens of an answer
    beam_width      hypotheses of a beam search; 1 or absent: greedy search
    length_power    exponent of the length normalisation of scores
    temperature, top_k, seed
                    any of them: tokens are sampled; excludes a beam

A value of the wrong type or out of bounds raises InvalidRequest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from weir.bundle.hypothesis_ranking import DEFAULT_LENGTH_POWER
from weir.protocol import inference_pb2 as infer_pb
from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.protocol.request_decoder import read_integer, read_number

MAX_SAMPLES = 16
MAX_SEED = 2**63 - 1
MAX_LENGTH_POWER = 10.0
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
_MAX_COUNT = 2**31 - 1
_SAMPLING_KEYS = ("temperature", "top_k", "seed")


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """How tokens are sampled from their probabilities.

    Attributes:
        temperature: divides log-probabilities; above 0.
        top_k: only the k likeliest tokens are sampled; 0: all.
        seed: equal seeds sample equal tokens.
    """

    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """The search that a request wants for each of its rows.

    Attributes:
        width: of the beam; 1: greedy search.
        n_best: hypotheses of a row; at most `width` for a beam, 1 for greedy search.
        sampling: instead of a beam or greedy search.
        max_tokens: of a hypothesis; None: as many as the model allows.
    """

    width: int = 1
    n_best: int = 1
    length_power: float = DEFAULT_LENGTH_POWER
    sampling: SamplingParameters | None = None
    max_tokens: int | None = None

    @property
    def slots(self) -> int:
        """Slots of the decoder batch that one row takes."""
        return self.n_best if self.sampling else self.width


def read_parameters(parameters: Mapping[str, infer_pb.InferParameter]) -> SearchParameters:
    """The search parameters of a `ModelInferRequest`."""
    width = read_integer(parameters, "beam_width", 1, _MAX_COUNT)
    power = read_number(parameters, "length_power", 0.0, MAX_LENGTH_POWER)
    search = SearchParameters(
        width=width or 1,
        length_power=DEFAULT_LENGTH_POWER if power is None else power,
        sampling=_read_sampling(parameters),
        max_tokens=read_integer(parameters, "max_tokens", 1, _MAX_COUNT),
    )
    if search.sampling and search.width > 1:
        raise InvalidRequest(
            "beam_width: expected 1 or none where tokens are sampled "
            f"({', '.join(_SAMPLING_KEYS)}), got {width}"
        )
    return search


def _read_sampling(parameters: Mapping[str, infer_pb.InferParameter]) -> SamplingParameters | None:
    if not any(key in parameters for key in _SAMPLING_KEYS):
        return None
    temperature = read_number(parameters, "temperature", MIN_TEMPERATURE, MAX_TEMPERATURE)
    return SamplingParameters(
        temperature=1.0 if temperature is None else temperature,
        top_k=read_integer(parameters, "top_k", 0, _MAX_COUNT) or 0,
        seed=read_integer(parameters, "seed", 0, MAX_SEED) or 0,
    )


def read_message(message: pb.GenerateRequest) -> SearchParameters:
    """The search parameters of a `GenerateRequest`."""
    n_best, max_tokens = message.n_best or 1, message.max_tokens or None
    match message.WhichOneof("search"):
        case "beam":
            beam = message.beam
            width = _within("beam.width", beam.width, 1, None)
            power = beam.length_power if beam.HasField("length_power") else DEFAULT_LENGTH_POWER
            return SearchParameters(
                width=int(width),
                n_best=int(_within("n_best of a beam search", n_best, 1, width)),
                length_power=_within("beam.length_power", power, 0.0, MAX_LENGTH_POWER),
                max_tokens=max_tokens,
            )
        case "sample":
            sample = message.sample
            temperature = sample.temperature if sample.HasField("temperature") else 1.0
            return SearchParameters(
                n_best=int(_within("n_best of samples", n_best, 1, MAX_SAMPLES)),
                sampling=SamplingParameters(
                    temperature=_within(
                        "sample.temperature", temperature, MIN_TEMPERATURE, MAX_TEMPERATURE
                    ),
                    top_k=sample.top_k,
                    seed=int(_within("sample.seed", sample.seed, 0, MAX_SEED)),
                ),
                max_tokens=max_tokens,
            )
    _within("n_best of a greedy search", n_best, 1, 1)
    return SearchParameters(max_tokens=max_tokens)


def _within(name: str, value: float, least: float, most: float | None) -> float:
    """The value, if it is within its bounds; NaN is not."""
    if not (value >= least and (most is None or value <= most)):
        if most is None:
            expected = f"{least:g} or more"
        else:
            expected = f"{least:g}" if most == least else f"{least:g} to {most:g}"
        raise InvalidRequest(f"{name}: expected {expected}, got {value:g}")
    return value
