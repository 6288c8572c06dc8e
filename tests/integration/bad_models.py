"""Model directories that must not be served, each with what its reason must say."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import onnx_models
from tests.integration import bad_graphs
from tests.integration.bad_graphs import OUTSIDE, at_top, of_operator
from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.writer import write


@dataclass(frozen=True)
class Bad:
    """A model that must fail.

    Attributes:
        row: of the catalogue.
        name: of the model.
        make: puts it into the repository.
        says: a part of the reason.
    """

    row: str
    name: str
    make: Callable[[Path, str], object]
    says: str


def publish(root: Path, name: str) -> Path:
    """A good bundle of `y = 2x + 1`."""
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    files = {
        "model.onnx": onnx_models.affine(),
        "labels.txt": b"north\neast\nsouth\nwest\n",
        GOLDEN: encode(Golden({"x": x}, {"y": 2 * x + 1})),
    }
    contract = Contract(
        task="other",
        architecture="affine",
        labels={"y": "labels.txt"},
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    return write(files, contract, root, name)


def with_hash(directory: Path, file: str, data: bytes, **contract: Any) -> None:
    """Put a file into a bundle as if it had been published with it."""
    (directory / file).write_bytes(data)
    text = json.loads((directory / "model.json").read_text())
    text["files"][file] = hashlib.sha256(data).hexdigest()
    (directory / "model.json").write_text(json.dumps({**text, **contract}))


def plain(graph: bytes) -> Callable[[Path, str], object]:
    return lambda root, name: onnx_models.write_plain(root, name, graph)


def changed(change: Callable[[Path], object]) -> Callable[[Path, str], object]:
    """A good bundle, and then this."""
    return lambda root, name: change(publish(root, name))


def flipped(file: str) -> Callable[[Path], object]:
    def flip(directory: Path) -> None:
        data = bytearray((directory / file).read_bytes())
        data[len(data) // 2] ^= 1
        (directory / file).write_bytes(data)

    return flip


def another_weight(directory: Path) -> None:
    with_hash(directory, "model.onnx", onnx_models.affine(slope=2.0000002))


def rewritten(**changes: Any) -> Callable[[Path], object]:
    def rewrite(directory: Path) -> None:
        text = json.loads((directory / "model.json").read_text())
        (directory / "model.json").write_text(json.dumps({**text, **changes}))

    return rewrite


def beside(link: Callable[[Path, Path], object]) -> Callable[[Path, str], object]:
    """A plain model whose weights are said to lie in a file that leads to the file outside."""

    def make(root: Path, name: str) -> None:
        directory = onnx_models.write_plain(root, name, at_top("weights.bin"))
        link(root.parent / OUTSIDE, directory / "weights.bin")

    return make


def beside_with(location: str, offset: int) -> Callable[[Path, str], object]:
    """A plain model and its file of weights, where its weights are said to begin at `offset`."""

    def make(root: Path, name: str) -> None:
        directory = onnx_models.write_plain(root, name, at_top(location, offset=offset))
        (directory / location).write_bytes(bytes(16))

    return make


def below_a_link(root: Path, name: str) -> None:
    directory = onnx_models.write_plain(root, name, at_top(f"up/{OUTSIDE}"))
    (directory / "up").symlink_to(root.parent)


def moved(part: str, link: Callable[[Path, Path], object]) -> Callable[[Path, str], object]:
    """A good bundle of which a part lies elsewhere, and a link in its place."""

    def make(root: Path, name: str) -> None:
        publish(root, name)
        place = root / name / part
        elsewhere = root.parent / f"elsewhere-{name}"
        place.rename(elsewhere)
        link(elsewhere, place)

    return make


def dangling(directory: Path) -> None:
    (directory / "model.json").unlink()
    (directory / "model.json").symlink_to("nothing")


def symbolic(target: Path, place: Path) -> None:
    place.symlink_to(target)


AFFINE = onnx_models.affine()
NOISE = random.Random(7).randbytes(4096)
REFUSES = "ONNX Runtime refuses the graph"
LINK = "expected a regular file, got a link"
ELSEWHERE = "expected the name of a file beside the graph, got "
MISSING = f"{OUTSIDE}: expected a regular file, got an error: No such file or directory"

BAD = [
    Bad("E01", "empty", plain(b""), REFUSES),
    Bad("E01", "noise", plain(NOISE), "model.onnx: expected an ONNX file, got malformed bytes"),
    Bad("E01", "half", plain(AFFINE[: len(AFFINE) // 2]), "malformed bytes"),
    Bad("E01", "words", plain(b"version https://git-lfs.github.com/spec/v1\n"), "malformed bytes"),
    Bad(
        "E01",
        "empty_contract",
        changed(lambda d: (d / "model.json").write_text("")),
        "model.json",
    ),
    Bad(
        "E01",
        "noise_recorded",
        changed(lambda d: with_hash(d, GOLDEN, NOISE)),
        "golden.npz: expected an archive of arrays",
    ),
    Bad("E02", "bit_of_graph", changed(flipped("model.onnx")), "model.onnx: expected SHA-256"),
    Bad("E02", "bit_of_golden", changed(flipped(GOLDEN)), "golden.npz: expected SHA-256"),
    Bad("E02", "bit_of_labels", changed(flipped("labels.txt")), "labels.txt: expected SHA-256"),
    Bad("E02", "weight_with_its_hash", changed(another_weight), "golden output 'y' differs by"),
    Bad(
        "E03",
        "contract_to_come",
        changed(lambda d: (d / "model.json").unlink()),
        "expected model.json, which is written last",
    ),
    Bad(
        "E03",
        "graph_to_come",
        changed(lambda d: (d / "model.onnx").unlink()),
        "files listed but missing: model.onnx",
    ),
    Bad(
        "E04",
        "hash_of_another",
        changed(lambda d: with_hash(d, "model.onnx", b"", files={"model.onnx": "0" * 64})),
        "files present but not listed: 'golden.npz', 'labels.txt'",
    ),
    Bad(
        "E04",
        "hidden_file",
        changed(lambda d: (d / ".x\x1b[31m\nmodel ready").write_text("")),
        r"not listed: '.x\x1b[31m\nmodel ready'",
    ),
    Bad(
        "E04",
        "name_without_utf8",
        changed(lambda d: (d / os.fsdecode(b"\xff")).write_text("")),
        r"not listed: '\udcff'",
    ),
    Bad("E04", "unknown_key", changed(rewritten(**{"a\nb\x1b": 1})), r"model.json: a\nb\x1b"),
    Bad("E05", "absolute", plain(at_top(f"/etc/{OUTSIDE}")), f"{ELSEWHERE}'/etc/{OUTSIDE}'"),
    Bad("E05", "parent", plain(at_top(f"../../../{OUTSIDE}")), f"{ELSEWHERE}'../../../{OUTSIDE}'"),
    Bad("E05", "symlink", beside(symbolic), f"weights.bin: {LINK}"),
    Bad("E05", "parent_symlink", below_a_link, f"{ELSEWHERE}'up/{OUTSIDE}'"),
    Bad("E05", "branch", plain(bad_graphs.in_branch()), MISSING),
    Bad("E05", "function", plain(bad_graphs.in_function()), MISSING),
    Bad("E05", "constant", plain(bad_graphs.in_constant()), MISSING),
    Bad("E05", "sparse", plain(bad_graphs.in_sparse()), MISSING),
    Bad(
        "E05",
        "published",
        changed(lambda d: with_hash(d, "model.onnx", at_top("model.json"))),
        "external data 'model.json': expected a listed file",
    ),
    Bad(
        "E07",
        "version_link",
        moved("1", symbolic),
        "version_link/1: expected a directory, got a link",
    ),
    Bad("E07", "model_link", moved(".", symbolic), "model_link: expected a directory, got a link"),
    Bad("E07", "graph_link", moved("1/model.onnx", symbolic), f"model.onnx: {LINK}"),
    Bad("E07", "contract_link", moved("1/model.json", symbolic), f"model.json: {LINK}"),
    Bad(
        "E07",
        "contract_link_to_nothing",
        changed(dangling),
        f"model.json: {LINK}",
    ),
    Bad("E08", "offset_negative", plain(at_top(OUTSIDE, offset=-8)), "offset: expected a number"),
    Bad(
        "E08",
        "length_enormous",
        plain(at_top(OUTSIDE, length=1 << 50)),
        f"expected the 16 bytes of its type and shape, got a length of {1 << 50}",
    ),
    Bad(
        "E08",
        "past_the_end",
        beside_with("weights.bin", 1 << 20),
        "expected at least 1048592 bytes in 'weights.bin', got 16: is the file complete?",
    ),
    Bad(
        "E08",
        "labels_of_gigabytes",
        changed(lambda d: os.truncate(d / "labels.txt", 2_000_000_000)),
        "labels.txt: expected at most 16777216 bytes, got 2000000000",
    ),
    *(
        Bad("E14", f"{field}_without_utf8", plain(bad_graphs.renamed(field)), REFUSES)
        for field in ("input", "axis", "operator")
    ),
    Bad("E15", "opset", plain(of_operator("Identity", opset=9999)), REFUSES),
    Bad("E15", "operator", plain(of_operator("NoSuchOperator")), REFUSES),
    Bad("E15", "operator_of_a_library", plain(of_operator("Mine", domain="my.ops")), REFUSES),
    Bad(
        "E15",
        "wide",
        lambda root, name: onnx_models.write_plain(root, name, bad_graphs.of_inputs(100_000)),
        "expected at most 1024 inputs, got 100000",
    ),
    Bad(
        "E15",
        "provider",
        changed(rewritten(precision="fp16", providers=["cuda"])),
        "precision fp16 is served on CUDA only, this server runs models on CPU",
    ),
]  # fmt: skip


def write_all(root: Path) -> None:
    """Every bad model, and the file outside that some of them want."""
    (root.parent / OUTSIDE).write_bytes(np.full(4, 7, np.float32).tobytes())
    for bad in BAD:
        bad.make(root, bad.name)
