"""Pictures on the wire: files, encoded bytes and arrays → one call of `Classify`, and its answer."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weir.client.errors import Internal, UsageError
from weir.client.results import Class
from weir.client.wire import Call, Version, parse
from weir.protocol.weir.v1 import tasks_pb2 as pb

SERVICE = "weir.v1.Tasks"

Picture: TypeAlias = str | PathLike[str] | bytes | NDArray[np.uint8]
"""A file's path, a file's bytes (JPEG or PNG), or pixels (height, width) or (height, width, channels)."""

_CHANNELS = (1, 3, 4)
_MAX_TOP = 2**32 - 1


def classify(
    model: str, pictures: Sequence[pb.Picture], *, top: int, version: Version
) -> Call[list[list[Class]]]:
    """The call for the `top` classes of each picture.

    Raises:
        UsageError: `top` is no number of classes.
    """
    request = pb.ClassifyRequest(
        model_name=model, model_version=str(version), pictures=pictures, top_k=check_top(top)
    )

    def read(body: bytes) -> list[list[Class]]:
        results = parse(pb.ClassifyResponse, body).results
        if len(results) != len(pictures):
            raise Internal(f"expected results for {len(pictures)} pictures, got {len(results)}")
        return [[Class(c.probability, c.index, c.label) for c in one.classes] for one in results]

    return Call(f"/{SERVICE}/Classify", request.SerializeToString(), read)


def check_top(top: int) -> int:
    """The same number; UsageError unless so many classes may be asked for."""
    if not 1 <= top <= _MAX_TOP:
        raise UsageError(f"top: expected 1 to {_MAX_TOP}, got {top}")
    return top


def load(pictures: Iterable[Picture]) -> list[pb.Picture]:
    """Pictures as messages; files are read here, and decoded by the server.

    Raises:
        UsageError: a file that cannot be read, an array that is no picture, or no list of pictures.
    """
    is_one = isinstance(pictures, str | bytes | PathLike)
    if is_one or (isinstance(pictures, np.ndarray) and pictures.ndim != 4):
        raise UsageError("expected several pictures, got one: put it into a list")
    return [_load(picture) for picture in pictures]


def _load(picture: Picture) -> pb.Picture:
    match picture:
        case bytes():
            return pb.Picture(encoded=picture)
        case np.ndarray():
            return pb.Picture(raw=_pixels(picture))
    try:
        return pb.Picture(encoded=Path(picture).read_bytes())
    except OSError as error:
        raise UsageError(f"{picture}: {error.strerror or error}") from error


def _pixels(array: NDArray[np.uint8]) -> pb.Pixels:
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    if array.dtype != np.uint8 or len(shape) != 3 or shape[2] not in _CHANNELS:
        raise UsageError(
            "expected a uint8 array (height, width) or (height, width, 1, 3 or 4), "
            f"got {array.dtype} {array.shape}"
        )
    height, width, channels = shape
    return pb.Pixels(height=height, width=width, channels=channels, values=array.tobytes())
