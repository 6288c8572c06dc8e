"""`golden.npz`: inputs and the outputs expected for them, to be replayed wherever the bundle runs.

An ordinary .npz file (`numpy.load` reads it) of members `inputs/<name>` and `outputs/<name>`,
stored without compression and without Python objects, so that reading it can neither run code
nor take more memory than the file has bytes.
"""

import io
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from weir.bundle.errors import BrokenBundle

FILE_NAME = "golden.npz"

_UNREADABLE = (zipfile.BadZipFile, ValueError, OSError, OverflowError, RuntimeError, EOFError)
# Numbers and truth values, in the byte order that every processor here has.
_DTYPE = r"\|[biu]1|<[iu][248]|<f[248]"
# What `encode` writes, and nothing else that numpy would read.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>" + _DTYPE.encode() + rb")', "
    rb"'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,10}, ?){0,8}(?:\d{1,10})?)\), \} *\n",
    re.DOTALL,
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
                array = np.asarray(tensor)
                if not re.fullmatch(_DTYPE, array.dtype.str):
                    raise ValueError(f"{group}/{name}: expected numbers, got {array.dtype}")
                member = io.BytesIO()
                npy.write_array(member, array, allow_pickle=False)
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
            _check_sizes(archive.infolist(), len(data), file)
            for member in archive.infolist():
                group, _, name = member.filename.removesuffix(".npy").partition("/")
                if group not in groups or not name:
                    raise BrokenBundle(
                        f"{file}: expected members inputs/… and outputs/…, got {member.filename!r}"
                    )
                if name in groups[group]:
                    raise BrokenBundle(f"{file}: expected {member.filename!r} once, got it twice")
                if member.compress_type != zipfile.ZIP_STORED:
                    raise BrokenBundle(f"{file}: {member.filename}: expected no compression")
                groups[group][name] = _array(archive.read(member), f"{file}: {member.filename}")
    except _UNREADABLE as error:
        raise BrokenBundle(f"{file}: expected an archive of arrays: {error}") from error
    return Golden(inputs=groups["inputs"], outputs=groups["outputs"])


def _check_sizes(members: list[zipfile.ZipInfo], most: int, file: str) -> None:
    """Refuse members that lie over each other: read one by one, they hold more than the archive does."""
    total = sum(max(member.file_size, member.compress_size) for member in members)
    if total > most:
        raise BrokenBundle(f"{file}: expected members of at most {most} bytes, got {total}")


def _array(data: bytes, member: str) -> NDArray[Any]:
    """One array, its header checked against the bytes there are before memory is taken."""
    # numpy would hand the header to Python's own parser, which runs out of memory at enough minus signs.
    header = _HEADER.match(data)
    if header is None:
        raise BrokenBundle(f"{member}: expected an .npy file of numbers, version 1.0")
    start = 10 + int.from_bytes(data[8:10], "little")
    dtype = np.dtype(header["dtype"].decode())
    shape = tuple(map(int, re.findall(rb"\d+", header["shape"])))
    expected = math.prod(shape) * dtype.itemsize
    if header.end() != start or expected != len(data) - start:
        raise BrokenBundle(
            f"{member}: expected {expected} bytes for {dtype} {shape}, got {len(data) - start}"
        )
    order: Literal["F", "C"] = "F" if header["fortran"] == b"True" else "C"
    # A copy lies where the runtime may read it, whatever the length of the header.
    return np.frombuffer(data[start:], dtype).reshape(shape, order=order).copy(order="K")
