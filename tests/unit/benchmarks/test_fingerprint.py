"""Fingerprint model: bad bundles are rejected, and wrong answers are found."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.lib import fingerprint
from benchmarks.lib.fingerprint import Kind
from benchmarks.lib.http2 import framed
from benchmarks.reload import schedule
from weir.bundle import reader
from weir.bundle.errors import BundleError
from weir.bundle.reader import MODEL
from weir.protocol import inference_pb2 as pb
from weir.server.repository import loader

ROWS = np.array([[1, 2, 3], [-4, 2**40, 6]])


def publish(root: Path, kind: Kind, seed: int = 0) -> Path:
    fingerprint.publish(root, 7, kind, np.random.default_rng(seed))
    return root / fingerprint.NAME / "7"


def answer(rows: np.ndarray, *, hashed: np.ndarray, version: list[int], named: str = "7") -> bytes:
    told = pb.ModelInferResponse(model_version=named)
    outputs = {"echo": rows, "hash": hashed, "version": np.array(version)}
    for name, values in outputs.items():
        told.outputs.add(name=name, datatype="INT64", shape=values.shape)
        told.raw_output_contents.append(values.tobytes())
    return framed(told.SerializeToString())


def test_the_graph_answers_rightly(tmp_path: Path) -> None:
    session = ort.InferenceSession(publish(tmp_path, Kind.GOOD) / MODEL)

    echo, hashed, version = session.run(["echo", "hash", "version"], {"row": ROWS})

    assert fingerprint.is_right(answer(echo, hashed=hashed, version=version.tolist()), ROWS)
    assert version.tolist() == [7, 7]


def test_wrong_answers_are_found() -> None:
    right = fingerprint.hash_of(ROWS)
    wrong = [
        answer(ROWS, hashed=right, version=[7, 6]),
        answer(ROWS, hashed=right, version=[7, 7], named="8"),
        answer(ROWS, hashed=right[::-1], version=[7, 7]),
        answer(ROWS[::-1], hashed=right, version=[7, 7]),
        answer(ROWS[:1], hashed=right[:1], version=[7]),
    ]

    assert fingerprint.is_right(answer(ROWS, hashed=right, version=[7, 7]), ROWS)
    assert not any(fingerprint.is_right(each, ROWS) for each in wrong)


def test_a_good_bundle_is_read(tmp_path: Path) -> None:
    assert reader.read(publish(tmp_path, Kind.GOOD)).contract.architecture == fingerprint.NAME


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", [Kind.BROKEN, Kind.HALF_COPIED])
def test_a_bad_bundle_is_refused_wherever_it_breaks(kind: Kind, seed: int, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        loader.read(publish(tmp_path, kind, seed))


def test_the_schedule_holds_every_kind_in_an_order_that_does_not_change() -> None:
    counts = {Kind.GOOD: 50, Kind.BROKEN: 10, Kind.HALF_COPIED: 5}
    kinds = schedule(counts)

    assert {kind: kinds.count(kind) for kind in Kind} == counts
    assert kinds == schedule(counts)
    assert kinds != sorted(kinds, key=list(Kind).index)
