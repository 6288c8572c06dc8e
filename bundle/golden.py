"""Golden file of a bundle, `golden.npz`: inputs and their expected outputs, for the golden test.

It is an ordinary .npz file (`numpy.load` reads it) with members `inputs/<name>` and
`outputs/<name>`. It has no compression and no Python objects. So reading it cannot run code, and
takes no more memory than the file has bytes, and than a limited number of texts.
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
# Numbers, booleans, and texts of a fixed width, little-endian.
_DTYPE = r"\|[biu]1|<[iu][248]|<f[248]|<U[1-9]\d{0,5}"
# Each text becomes an object of 50 bytes or more.
_MOST_TEXTS = 1 << 16
# Headers as `encode` writes them; numpy would read others too.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>" + _DTYPE.encode() + rb")', "
    rb"'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,10}, ?){0,31}(?:\d{1,10})?)\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Golden:
    """Recorded inputs and outputs, by name; texts are arrays of `str` objects.

    The outputs are PyTorch's; a bundle in INT8 or of an imported file has those of its own graph on
    the exporting machine.
    """

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]


def file_of(graph: str) -> str:
    """The golden file of an encoder or decoder, as `golden.encoder.npz`."""
    return f"golden.{graph}.npz"


def encode(golden: Golden) -> bytes:
    """The bytes of `golden.npz`; the same tensors give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for group, tensors in (("inputs", golden.inputs), ("outputs", golden.outputs)):
            for name, tensor in tensors.items():
                array = _fixed_width(np.asarray(tensor))
                if not re.fullmatch(_DTYPE, array.dtype.str):
                    raise ValueError(
                        f"{group}/{name}: expected numbers or texts, got {array.dtype}"
                    )
                member = io.BytesIO()
                npy.write_array(member, array, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{group}/{name}.npy"), member.getvalue())
    return buffer.getvalue()


def decode(data: bytes, file: str = FILE_NAME) -> Golden:
    """Parse `golden.npz` or another golden file; BrokenBundle if it is damaged or unsafe."""
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


def _fixed_width(array: NDArray[Any]) -> NDArray[Any]:
    """An array of `str` objects as texts of one width; any other array as it is."""
    is_text = array.dtype == object and all(isinstance(text, str) for text in array.flat)
    return array.astype(np.str_) if is_text else array


def _check_sizes(members: list[zipfile.ZipInfo], most: int, file: str) -> None:
    """Raise BrokenBundle if members overlap: their sizes then add up to more than the archive's."""
    total = sum(max(member.file_size, member.compress_size) for member in members)
    if total > most:
        raise BrokenBundle(f"{file}: expected members of at most {most} bytes, got {total}")


def _array(data: bytes, member: str) -> NDArray[Any]:
    """Parse an array; its header is checked against its bytes before memory is allocated."""
    # numpy parses headers as Python code, which many minus signs can make run out of memory.
    header = _HEADER.match(data)
    if header is None:
        raise BrokenBundle(f"{member}: expected an .npy file of numbers or texts, version 1.0")
    start = 10 + int.from_bytes(data[8:10], "little")
    dtype = np.dtype(header["dtype"].decode())
    shape = tuple(map(int, re.findall(rb"\d+", header["shape"])))
    expected = math.prod(shape) * dtype.itemsize
    if header.end() != start or expected != len(data) - start:
        raise BrokenBundle(
            f"{member}: expected {expected} bytes for {dtype} {shape}, got {len(data) - start}"
        )
    order: Literal["F", "C"] = "F" if header["fortran"] == b"True" else "C"
    array = np.frombuffer(data[start:], dtype).reshape(shape, order=order)
    if dtype.kind == "U":
        if array.size > _MOST_TEXTS:
            raise BrokenBundle(f"{member}: expected at most {_MOST_TEXTS} texts, got {array.size}")
        return array.astype(object)
    # The copy is aligned, whatever the length of the header.
    return array.copy(order="K")
