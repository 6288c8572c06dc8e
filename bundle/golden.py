"""`golden.npz`: inputs and the outputs expected for them, to be replayed wherever the bundle runs.

An ordinary .npz file (`numpy.load` reads it) of members `inputs/<name>` and `outputs/<name>`,
stored without compression and without Python objects, so that reading it can neither run code
nor take more memory than the file has bytes.
"""

import io
import math
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bundle.errors import BrokenBundle

FILE_NAME = "golden.npz"

# An array's header is a Python literal, which numpy hands to Python's own parser.
_UNREADABLE = (
    zipfile.BadZipFile,
    ValueError,
    OSError,
    RuntimeError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
)


@dataclass(frozen=True, slots=True)
class Golden:
    """Tensors by name: what went into the network, and what came out of it.

    The outputs are PyTorch's, or of an INT8 bundle those of its graph where it was made.
    """

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]


def file_of(graph: str) -> str:
    """The file of one graph of a pair, `golden.encoder.npz`."""
    return f"golden.{graph}.npz"


def encode(golden: Golden) -> bytes:
    """The bytes of `golden.npz`; the same tensors give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for group, tensors in (("inputs", golden.inputs), ("outputs", golden.outputs)):
            for name, tensor in tensors.items():
                member = io.BytesIO()
                npy.write_array(member, np.asarray(tensor), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{group}/{name}.npy"), member.getvalue())
    return buffer.getvalue()


def decode(data: bytes, file: str = FILE_NAME) -> Golden:
    """Read `golden.npz`, or another file of its form.

    Raises:
        BrokenBundle: no archive, a member that is not ours, compressed, pickled or cut short.
    """
    groups: dict[str, dict[str, NDArray[Any]]] = {"inputs": {}, "outputs": {}}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                group, _, name = member.filename.removesuffix(".npy").partition("/")
                if group not in groups or not name:
                    raise BrokenBundle(
                        f"{file}: expected members inputs/… and outputs/…, got {member.filename!r}"
                    )
                if member.compress_type != zipfile.ZIP_STORED:
                    raise BrokenBundle(f"{file}: {member.filename}: expected no compression")
                groups[group][name] = _array(archive.read(member), f"{file}: {member.filename}")
    except _UNREADABLE as error:
        raise BrokenBundle(f"{file}: expected an archive of arrays: {error}") from error
    return Golden(inputs=groups["inputs"], outputs=groups["outputs"])


def _array(data: bytes, member: str) -> NDArray[Any]:
    """One array, its header checked against the bytes there are before memory is taken."""
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise BrokenBundle(f"{member}: expected .npy version 1.0, got {version}")
    shape, _, dtype = npy.read_array_header_1_0(stream)
    expected = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (dtype.itemsize == 0 or expected != len(data) - stream.tell()):
        raise BrokenBundle(
            f"{member}: expected {expected} bytes for {dtype} {shape}, "
            f"got {len(data) - stream.tell()}"
        )
    stream.seek(0)
    return npy.read_array(stream, allow_pickle=False)
