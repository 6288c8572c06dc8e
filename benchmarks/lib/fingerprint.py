"""Fingerprint model, whose rows contain its version; good and bad bundles of it, and a check.

It computes with integers only, so its answers are exact in every batch. The check finds mixed-up
rows and wrong version numbers.
"""

from enum import Enum
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.lib.http2 import messages
from weir.bundle.contract import FILE_NAME as CONTRACT
from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.reader import MODEL
from weir.bundle.writer import write
from weir.protocol import inference_pb2 as pb

NAME = "fingerprint"
_MODULUS = 1_000_003
_GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
fingerprint (int64[batch, n] row) => (int64[batch, n] echo, int64[batch] hash, int64[batch] version)
<int64 zero = {{0}}, int64 one = {{1}}, int64 modulus = {{{modulus}}},
 int64[1] last = {{1}}, int64[1] served = {{{version}}}>
{{
    echo = Identity(row)
    width = Shape <start = 1, end = 2> (row)
    count = Squeeze(width)
    end = Add(count, one)
    place = Range(one, end, one)
    rest = Mod(row, modulus)
    weighted = Mul(rest, place)
    hash = ReduceSum <keepdims = 0> (weighted, last)
    rows = Shape <start = 0, end = 1> (row)
    version = Expand(served, rows)
}}
"""

Rows = NDArray[np.int64]


class Kind(Enum):
    """The kind of a bundle: good, broken or half copied."""

    GOOD = "good"
    BROKEN = "broken"
    HALF_COPIED = "half-copied"


def publish(models: Path, version: int, kind: Kind, random: np.random.Generator) -> None:
    """Write a version into a repository; the place of damage in a bad one is random."""
    rows = np.array([[1, 2, 3], [4, 5, 6]])
    outputs = {"echo": rows, "hash": hash_of(rows), "version": np.full(2, version)}
    tolerance = Tolerance(absolute=0.0, relative=0.0)
    contract = Contract(task="other", architecture=NAME, tolerance=tolerance)
    graph = onnx.parser.parse_model(_GRAPH.format(modulus=_MODULUS, version=version))
    files = {MODEL: graph.SerializeToString(), GOLDEN: encode(Golden({"row": rows}, outputs))}
    directory = write(files, contract, models, NAME, version)
    if kind is Kind.BROKEN:
        _flip_a_bit(directory / MODEL, random)
    elif kind is Kind.HALF_COPIED:
        _break_off(directory, random)


def hash_of(rows: Rows) -> Rows:
    """The model's `hash` of rows (B, N): one integer per row, (B,)."""
    hashes: Rows = (rows % _MODULUS * np.arange(1, rows.shape[1] + 1)).sum(axis=1)
    return hashes


def is_right(answer: bytes, rows: Rows) -> bool:
    """Whether an answer holds these rows' values and those of the version that it names."""
    (message,) = messages(answer)
    response = pb.ModelInferResponse.FromString(message)
    named = int(response.model_version)
    expected = {"echo": rows, "hash": hash_of(rows), "version": np.full(len(rows), named)}
    got = {
        output.name: np.frombuffer(raw, np.int64).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return got.keys() == expected.keys() and all(
        np.array_equal(got[name], values) for name, values in expected.items()
    )


def _flip_a_bit(path: Path, random: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[random.integers(len(data))] ^= 1 << random.integers(8)
    path.write_bytes(data)


def _break_off(directory: Path, random: np.random.Generator) -> None:
    """Truncate a copy in the middle of a file."""
    names = [MODEL, GOLDEN, CONTRACT]
    last = int(random.integers(len(names)))
    path = directory / names[last]
    data = path.read_bytes()
    path.write_bytes(data[: random.integers(1, len(data))])
    for name in names[last + 1 :]:
        (directory / name).unlink()
