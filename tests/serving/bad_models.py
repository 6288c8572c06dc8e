"""Model directories that must not be served, each with what its reason must say."""

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper

from bundle.contract import Contract, Tolerance
from bundle.golden import FILE_NAME as GOLDEN
from bundle.golden import Golden, encode
from bundle.writer import write
from tests import onnx_models

SECRET = "secret.bin"
"""A file beside the repository, of the bytes that a graph would like to have as its weights."""


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


# External data


def external(location: str, offset: int = 0, length: int = 16) -> TensorProto:
    """A tensor whose four numbers are said to lie elsewhere."""
    tensor = TensorProto(name="slope", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def axes(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])


def graph_of(
    nodes: Sequence[NodeProto],
    initializers: Sequence[TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    """x → y with these parts; nothing is checked."""
    graph = helper.make_graph(nodes, "external", [axes("x")], [axes("y")], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    return model.SerializeToString()


MULTIPLY = helper.make_node("Mul", ["x", "slope"], ["y"])


def at_top(location: str, **bounds: int) -> bytes:
    return graph_of([MULTIPLY], [external(location, **bounds)])


def in_branch() -> bytes:
    branch = helper.make_graph([MULTIPLY], "branch", [], [axes("y")], [external(SECRET)])
    condition = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return graph_of([node], [condition])


def in_function() -> bytes:
    constant = helper.make_node("Constant", [], ["slope"], value=external(SECRET))
    function = helper.make_function(
        "own", "Scale", ["x"], ["y"], [constant, MULTIPLY], [helper.make_opsetid("", 21)]
    )
    return graph_of([helper.make_node("Scale", ["x"], ["y"], domain="own")], functions=[function])


def in_constant() -> bytes:
    return graph_of([helper.make_node("Constant", [], ["slope"], value=external(SECRET)), MULTIPLY])


def in_sparse() -> bytes:
    sparse = onnx.SparseTensorProto(values=external(SECRET), dims=[4])
    attribute = AttributeProto(
        name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse
    )
    constant = helper.make_node("Constant", [], ["slope"])
    constant.attribute.append(attribute)
    return graph_of([constant, MULTIPLY])


def beside(link: Callable[[Path, Path], object]) -> Callable[[Path, str], object]:
    """A plain model whose weights are said to lie in a file that leads to the secret."""

    def make(root: Path, name: str) -> None:
        directory = onnx_models.write_plain(root, name, at_top("weights.bin"))
        link(root.parent / SECRET, directory / "weights.bin")

    return make


def below_a_link(root: Path, name: str) -> None:
    directory = onnx_models.write_plain(root, name, at_top(f"up/{SECRET}"))
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


def symbolic(target: Path, place: Path) -> None:
    place.symlink_to(target)


# Names and operators


def renamed(field: str) -> bytes:
    """A graph in which one text is no UTF-8."""
    node = helper.make_node("Identity", ["x"], ["y"])
    axis = "QQQQ" if field == "axis" else "batch"
    name = "QQQQ" if field == "input" else "x"
    node.input[0] = name
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [axis, 4])
    graph = helper.make_graph([node], "names", [value], [axes("y")])
    opset = helper.make_opsetid("QQQQ" if field == "domain" else "", 21)
    opsets = [opset, helper.make_opsetid("", 21)] if field == "domain" else [opset]
    if field == "operator":
        node.op_type = "QQQQ"
        graph.node[0].op_type = "QQQQ"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString().replace(b"QQQQ", b"Q\xff\xfe\x80")


def of_operator(name: str, domain: str = "", opset: int = 21) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], domain=domain)], "g", [axes("x")], [axes("y")]
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def of_inputs(count: int) -> bytes:
    inputs = [
        helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, ["batch", 4])
        for number in range(count)
    ]
    node = helper.make_node("Identity", ["x0"], ["y"])
    graph = helper.make_graph([node], "wide", inputs, [axes("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()


AFFINE = onnx_models.affine()
NOISE = random.Random(7).randbytes(4096)
REFUSES = "ONNX Runtime refuses the graph"
OUTSIDE = "expected all weights inside the file, got external data in "

BAD = [
    Bad("E01", "empty", plain(b""), REFUSES),
    Bad("E01", "noise", plain(NOISE), "model.onnx: expected an ONNX file, got malformed bytes"),
    Bad("E01", "half", plain(AFFINE[: len(AFFINE) // 2]), "malformed bytes"),
    Bad("E01", "words", plain(b"version https://git-lfs.github.com/spec/v1\n"), "malformed bytes"),
    Bad("E01", "empty_contract", changed(lambda d: (d / "model.json").write_text("")), "model.json"),
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
    Bad("E05", "absolute", plain(at_top(f"/etc/{SECRET}")), f"{OUTSIDE}'/etc/{SECRET}'"),
    Bad("E05", "parent", plain(at_top(f"../../../{SECRET}")), f"{OUTSIDE}'../../../{SECRET}'"),
    Bad("E05", "symlink", beside(symbolic), f"{OUTSIDE}'weights.bin'"),
    Bad("E05", "parent_symlink", below_a_link, f"{OUTSIDE}'up/{SECRET}'"),
    Bad("E05", "branch", plain(in_branch()), f"{OUTSIDE}'{SECRET}'"),
    Bad("E05", "function", plain(in_function()), f"{OUTSIDE}'{SECRET}'"),
    Bad("E05", "constant", plain(in_constant()), f"{OUTSIDE}'{SECRET}'"),
    Bad("E05", "sparse", plain(in_sparse()), f"{OUTSIDE}'{SECRET}'"),
    Bad(
        "E05",
        "published",
        changed(lambda d: with_hash(d, "model.onnx", at_top("labels.txt"))),
        f"{OUTSIDE}'labels.txt'",
    ),
    Bad("E06", "weights_hard_link", beside(lambda t, p: p.hardlink_to(t)), f"{OUTSIDE}'weights.bin'"),
    Bad(
        "E06",
        "graph_hard_link",
        moved("1/model.onnx", lambda t, p: p.hardlink_to(t)),
        "model.onnx: expected a file of one name, got 2 hard links",
    ),
    Bad("E07", "version_link", moved("1", symbolic), "version_link/1: expected a directory, got a link"),
    Bad("E07", "model_link", moved(".", symbolic), "model_link: expected a directory, got a link"),
    Bad("E07", "graph_link", moved("1/model.onnx", symbolic), "model.onnx: expected a regular file, got a link"),
    Bad("E07", "contract_link", moved("1/model.json", symbolic), "model.json: expected a regular file, got a link"),
    Bad(
        "E07",
        "contract_link_to_nothing",
        changed(lambda d: ((d / "model.json").unlink(), (d / "model.json").symlink_to("nothing"))),
        "model.json: expected a regular file, got a link",
    ),
    Bad("E08", "offset_negative", plain(at_top(SECRET, offset=-8)), f"{OUTSIDE}'{SECRET}'"),
    Bad("E08", "length_enormous", plain(at_top(SECRET, length=1 << 50)), f"{OUTSIDE}'{SECRET}'"),
    Bad("E08", "past_the_end", plain(at_top(SECRET, offset=1 << 20)), f"{OUTSIDE}'{SECRET}'"),
    Bad(
        "E08",
        "labels_of_gigabytes",
        changed(lambda d: os.truncate(d / "labels.txt", 2_000_000_000)),
        "labels.txt: expected at most 16777216 bytes, got 2000000000",
    ),
    *(
        Bad("E14", f"{field}_without_utf8", plain(renamed(field)), REFUSES)
        for field in ("input", "axis", "operator")
    ),
    Bad("E15", "opset", plain(of_operator("Identity", opset=9999)), REFUSES),
    Bad("E15", "operator", plain(of_operator("NoSuchOperator")), REFUSES),
    Bad("E15", "operator_of_a_library", plain(of_operator("Mine", domain="my.ops")), REFUSES),
    Bad(
        "E15",
        "wide",
        lambda root, name: onnx_models.write_plain(root, name, of_inputs(100_000)),
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
    """Every bad model, and the secret that some of them want."""
    (root.parent / SECRET).write_bytes(np.full(4, 7, np.float32).tobytes())
    for bad in BAD:
        bad.make(root, bad.name)


def write_damaged(root: Path, graphs: Mapping[str, bytes], flips: int) -> None:
    """Each graph as a plain model, cut off at each 64th byte, and with single bits flipped."""
    chance = random.Random(7)
    for name, graph in graphs.items():
        for size in range(0, len(graph), 64):
            onnx_models.write_plain(root, f"{name}_cut_{size}", graph[:size])
        for place in chance.sample(range(8 * len(graph)), flips):
            damaged = bytearray(graph)
            damaged[place // 8] ^= 1 << place % 8
            onnx_models.write_plain(root, f"{name}_bit_{place}", bytes(damaged))
