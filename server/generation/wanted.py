"""What a `GenerateRequest` asks of a search."""

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.generation.parameters import (
    LEAST_TEMPERATURE,
    MAX_LENGTH_POWER,
    MAX_SEED,
    MAX_TEMPERATURE,
)
from weir.server.generation.sampling import DEFAULT_LENGTH_POWER, Draw, Search

MAX_SAMPLES = 16


def search_of(message: pb.GenerateRequest) -> Search:
    """The search that a message asks for.

    Raises:
        InvalidRequest: a value out of bounds, or more results than the search has.
    """
    best, most_tokens = message.n_best or 1, message.max_tokens or None
    match message.WhichOneof("search"):
        case "beam":
            beam = message.beam
            width = _within("beam.width", beam.width, 1, None)
            power = beam.length_power if beam.HasField("length_power") else DEFAULT_LENGTH_POWER
            return Search(
                width=int(width),
                best=int(_within("n_best, of a beam", best, 1, width)),
                length_power=_within("beam.length_power", power, 0.0, MAX_LENGTH_POWER),
                most_tokens=most_tokens,
            )
        case "sample":
            return Search(
                best=int(_within("n_best, of samples", best, 1, MAX_SAMPLES)),
                draw=_draw_of(message.sample),
                most_tokens=most_tokens,
            )
    _within("n_best, greedily", best, 1, 1)
    return Search(most_tokens=most_tokens)


def _draw_of(sample: pb.GenerateRequest.Sample) -> Draw:
    temperature = sample.temperature if sample.HasField("temperature") else 1.0
    return Draw(
        temperature=_within("sample.temperature", temperature, LEAST_TEMPERATURE, MAX_TEMPERATURE),
        top_k=sample.top_k,
        seed=int(_within("sample.seed", sample.seed, 0, MAX_SEED)),
    )


def _within(name: str, value: float, least: float, most: float | None) -> float:
    """The value; NaN is out of every bound."""
    if not (value >= least and (most is None or value <= most)):
        if most is None:
            expected = f"{least:g} or more"
        else:
            expected = f"{least:g}" if most == least else f"{least:g} to {most:g}"
        raise InvalidRequest(f"{name}: expected {expected}, got {value:g}")
    return value
