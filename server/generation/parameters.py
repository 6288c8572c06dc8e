"""What a `ModelInferRequest` may ask of a search: parameters beside its tensors.

max_tokens      most tokens of an answer
beam_width      hypotheses that are kept; 1 (or nothing): the likeliest token at every step
length_power    a of the scores, and of a beam's ranking
temperature, top_k, seed
                any of them: tokens are drawn, instead of a beam
"""

from collections.abc import Mapping

from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.generation.sampling import DEFAULT_LENGTH_POWER, Draw, Search
from weir.server.protocol.request_decoder import read_integer, read_number

MAX_SEED = 2**63 - 1
MAX_LENGTH_POWER = 10.0
LEAST_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
_MAX_COUNT = 2**31 - 1
_OF_DRAWS = ("temperature", "top_k", "seed")


def read_search(parameters: Mapping[str, pb.InferParameter]) -> Search:
    """The search that a request wants.

    Raises:
        InvalidRequest: a value of the wrong type or out of bounds, or draws within a beam.
    """
    width = read_integer(parameters, "beam_width", 1, _MAX_COUNT)
    power = read_number(parameters, "length_power", 0.0, MAX_LENGTH_POWER)
    search = Search(
        width=width or 1,
        length_power=DEFAULT_LENGTH_POWER if power is None else power,
        draw=_read_draw(parameters),
        most_tokens=read_integer(parameters, "max_tokens", 1, _MAX_COUNT),
    )
    if search.draw and search.width > 1:
        raise InvalidRequest(
            f"beam_width: expected 1 or none where tokens are drawn ({', '.join(_OF_DRAWS)}), got {width}"
        )
    return search


def _read_draw(parameters: Mapping[str, pb.InferParameter]) -> Draw | None:
    if not any(key in parameters for key in _OF_DRAWS):
        return None
    temperature = read_number(parameters, "temperature", LEAST_TEMPERATURE, MAX_TEMPERATURE)
    return Draw(
        temperature=1.0 if temperature is None else temperature,
        top_k=read_integer(parameters, "top_k", 0, _MAX_COUNT) or 0,
        seed=read_integer(parameters, "seed", 0, MAX_SEED) or 0,
    )
