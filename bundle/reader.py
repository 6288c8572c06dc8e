"""Reader of bundles: verifies a bundle and returns the bytes that it verified.

Rules:

- Each file is read once (`repository_files`); the bytes that are hashed are those returned.
- The directory contains exactly the files that `model.json` lists. Names that begin with two dots
  are not counted if links are followed: Kubernetes keeps the targets of a mount's links there.
- External data of a graph is in files beside it, which `model.json` lists (`external_data`).
- A file takes the memory of its bytes; contract and texts, which take more, have a size limit.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from weir.bundle import contract as contracts
from weir.bundle import external_data, golden
from weir.bundle.contract import Contract
from weir.bundle.errors import BrokenBundle
from weir.bundle.escaping import short_list, short_repr
from weir.bundle.external_data import ResolvedGraph
from weir.bundle.golden import Golden
from weir.bundle.repository_files import (
    MAX_FILE_BYTES,
    NO_LINKS,
    LinkRoots,
    check_directory,
    read_file,
    real_directory,
    version_directory,
)

MODEL = "model.onnx"
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_GRAPHS = {"model": MODEL, "encoder": ENCODER, "decoder": DECODER}

# Of a tokenizer.json; those of vocabularies of 250,000 entries have 17 to 34 MB.
_MAX_TOKENIZER_BYTES = 1 << 26
# Parsed texts take many times their size: a line takes at least 50 bytes.
_MAX_TEXT_BYTES = 1 << 24
# Weights may be larger than an ONNX file.
_MAX_WEIGHT_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle in memory.

    Attributes:
        graphs: its ONNX files: `model`, or `encoder` and `decoder`.
    """

    contract: Contract
    graphs: Mapping[str, ResolvedGraph]
    files: Mapping[str, bytes]
    texts: Mapping[str, Sequence[str]]

    @property
    def model(self) -> bytes:
        """The graph `model`; BrokenBundle if the bundle has two graphs."""
        if MODEL not in self.files:
            raise BrokenBundle(f"expected {MODEL}, got a bundle of {ENCODER} and {DECODER}")
        return self.graphs["model"].model

    def golden(self, graph: str | None = None) -> Golden | None:
        """Recorded inputs and outputs, None if the bundle has none; BrokenBundle if damaged.

        `graph` is `encoder` or `decoder`; None: the whole model.
        """
        file = golden.FILE_NAME if graph is None else golden.file_of(graph)
        data = self.files.get(file)
        return None if data is None else golden.decode(data, file)

    def labels(self, output: str) -> Sequence[str] | None:
        """The labels of an output by index, None if it has none."""
        file = self.contract.labels.get(output)
        return None if file is None else self.texts[file]

    def vocabulary(self, input_name: str) -> Sequence[str] | None:
        """The entries of an input's vocabulary by id, None if it has none."""
        file = self.contract.vocabularies.get(input_name)
        return None if file is None else self.texts[file]

    @property
    def subwords(self) -> bytes | None:
        """The sentencepiece model, None if the bundle has none."""
        return self._tokenizer_file("subwords")

    @property
    def tokenizer_json(self) -> bytes | None:
        """The tokenizer.json, None if the bundle has none."""
        return self._tokenizer_file("tokenizer-json")

    def _tokenizer_file(self, rule: str) -> bytes | None:
        own = self.contract.tokenisation
        return self.files[own.model] if own and own.model and own.rule == rule else None


def read(directory: Path, links: LinkRoots = NO_LINKS) -> Bundle:
    """Read and verify `<models>/<name>/<version>/`; BrokenBundle if it breaks a rule."""
    with version_directory(directory, links) as real:
        # Messages show the path with its links; the path of the target is the operator's alone.
        return _read(Path(os.path.abspath(directory)), real, links)  # noqa: PTH100


def _read(directory: Path, real: Path, links: LinkRoots) -> Bundle:
    if not os.path.lexists(real / contracts.FILE_NAME):
        raise BrokenBundle(f"{directory}: expected {contracts.FILE_NAME}, which is written last")
    contract = contracts.parse(read_file(real / contracts.FILE_NAME, _MAX_TEXT_BYTES, links))
    _check_listing(directory, real, contract, links)
    limits = dict.fromkeys(
        (*contract.labels.values(), *contract.vocabularies.values()), _MAX_TEXT_BYTES
    )
    tokenisation = contract.tokenisation
    if tokenisation and tokenisation.model and tokenisation.rule == "tokenizer-json":
        limits[tokenisation.model] = _MAX_TOKENIZER_BYTES
    files: dict[str, bytes] = {}

    def read_listed(name: str, limit_bytes: int) -> bytes:
        if name not in contract.files:
            raise BrokenBundle(f"external data {short_repr(name)}: expected a listed file")
        if name not in files:
            data = read_file(real / name, limits.get(name, limit_bytes), links)
            if (actual := hashlib.sha256(data).hexdigest()) != contract.files[name]:
                raise BrokenBundle(f"{name}: expected SHA-256 {contract.files[name]}, got {actual}")
            files[name] = data
        return files[name]

    graphs = {
        graph: external_data.resolve(
            read_listed(file, MAX_FILE_BYTES),
            lambda name: read_listed(name, _MAX_WEIGHT_BYTES),
            file,
        )
        for graph, file in _GRAPHS.items()
        if file in contract.files
    }
    listed = {name: read_listed(name, MAX_FILE_BYTES) for name in contract.files}
    texts = _texts("labels", contract.labels, listed)
    texts |= _texts("vocabularies", contract.vocabularies, listed)
    model = tokenisation.model if tokenisation else None
    if model is not None and model not in listed:
        raise BrokenBundle(f"tokenisation.model: expected a listed file, got {model!r}")
    return Bundle(
        contract, MappingProxyType(graphs), MappingProxyType(listed), MappingProxyType(texts)
    )


def is_pair(directory: Path) -> bool:
    """Whether a version directory has two graphs, by its file names alone; `read` verifies it."""
    return os.path.lexists(directory / contracts.FILE_NAME) and any(
        os.path.lexists(directory / name) for name in (ENCODER, DECODER)
    )


def read_without_contract(
    directory: Path, file: str = MODEL, links: LinkRoots = NO_LINKS
) -> ResolvedGraph:
    """Read the graph `file` of a version directory without a contract.

    BrokenBundle if it is unsafe, or if the directory is a bundle whose contract is not yet there.
    """
    with version_directory(directory, links) as real:
        if os.path.lexists(real / golden.FILE_NAME):
            raise BrokenBundle(
                f"{directory}: expected {contracts.FILE_NAME}, which is written last"
            )
        if not os.path.lexists(real / file):
            names = sorted(short_repr(each.name) for each in real.iterdir())
            got = short_list(names) or "an empty directory"
            raise BrokenBundle(f"{file}: expected an ONNX file of this name, got {got}")
        return external_data.resolve(
            read_file(real / file, MAX_FILE_BYTES, links),
            lambda name: read_file(real / name, _MAX_WEIGHT_BYTES, links),
            file,
        )


def read_model_file(
    model_directory: Path, file: str, limit_bytes: int, links: LinkRoots = NO_LINKS
) -> bytes | None:
    """Read a file beside the version directories; None if it is absent, BrokenBundle if unsafe."""
    if links:
        model_directory = real_directory(model_directory, links)
    else:
        check_directory(model_directory)
    path = model_directory / file
    return read_file(path, limit_bytes, links) if os.path.lexists(path) else None


def _check_listing(directory: Path, real: Path, contract: Contract, links: LinkRoots) -> None:
    present = {entry.name for entry in real.iterdir()} - {contracts.FILE_NAME}
    if links:
        present = {name for name in present if not name.startswith("..")}
    listed = set(contract.files)
    if missing := sorted(listed - present):
        raise BrokenBundle(f"{directory}: files listed but missing: {short_list(missing)}")
    if unlisted := sorted(present - listed):
        raise BrokenBundle(
            f"{directory}: files present but not listed: "
            + short_list([repr(name) for name in unlisted])
        )
    expected = {MODEL} if contract.decoding is None else {ENCODER, DECODER}
    if listed & set(_GRAPHS.values()) != expected:
        raise BrokenBundle(
            f"{contracts.FILE_NAME}: files: expected {' and '.join(sorted(expected))} among them, "
            f"got {short_list(sorted(listed))}"
        )


def _texts(
    key: str, names: Mapping[str, str], files: Mapping[str, bytes]
) -> dict[str, Sequence[str]]:
    """The lines of each text file that the contract names, by file."""
    for tensor, file in names.items():
        if file not in files:
            raise BrokenBundle(f"{key}.{tensor}: expected a listed file, got {file!r}")
    return {file: _lines(file, files[file]) for file in set(names.values())}


def _lines(file: str, data: bytes) -> Sequence[str]:
    if b"\0" in data:
        raise BrokenBundle(f"{file}: expected a text, got a NUL at byte {data.index(0)}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BrokenBundle(f"{file}: expected UTF-8, {error.reason}") from error
    return text.removesuffix("\n").split("\n") if text else []
