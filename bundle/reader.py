"""Reader of bundles: verifies a bundle and returns the bytes that it verified.

Rules:

- Each file is read once; the bytes that are hashed are the bytes that are returned.
- The directory contains exactly the files that `model.json` lists. They are regular files, neither
  symbolic nor hard links.
- A graph has all its weights inside (`external_data`).
- A file takes the memory of its bytes; contract and texts, which take more, have a size limit.
"""

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from weir.bundle import contract as contracts
from weir.bundle import external_data, golden
from weir.bundle.contract import Contract
from weir.bundle.errors import BrokenBundle
from weir.bundle.escaping import short_list
from weir.bundle.golden import Golden

MODEL = "model.onnx"
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_GRAPHS = {"model": MODEL, "encoder": ENCODER, "decoder": DECODER}

# A protobuf message, and so an ONNX file, ends at 2 GiB.
_MAX_FILE_BYTES = (1 << 31) - 1
# Of a tokenizer.json; those of vocabularies of 250,000 entries have 17 to 34 MB.
_MAX_TOKENIZER_BYTES = 1 << 26
# Parsed texts take many times their size: a line takes at least 50 bytes.
_MAX_TEXT_BYTES = 1 << 24
# Without O_NONBLOCK, opening a named pipe would block for ever.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle in memory."""

    contract: Contract
    files: Mapping[str, bytes]
    texts: Mapping[str, Sequence[str]]

    @property
    def graphs(self) -> Mapping[str, bytes]:
        """Its ONNX files: `model`, or `encoder` and `decoder`."""
        return {name: self.files[file] for name, file in _GRAPHS.items() if file in self.files}

    @property
    def model(self) -> bytes:
        """The bytes of `model.onnx`; BrokenBundle if the bundle has two graphs."""
        if MODEL not in self.files:
            raise BrokenBundle(f"expected {MODEL}, got a bundle of {ENCODER} and {DECODER}")
        return self.files[MODEL]

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


def read(directory: Path) -> Bundle:
    """Read and verify `<models>/<name>/<version>/`; BrokenBundle if it breaks a rule."""
    directory = _real_directory(directory)
    if not os.path.lexists(directory / contracts.FILE_NAME):
        raise BrokenBundle(f"{directory}: expected {contracts.FILE_NAME}, which is written last")
    contract = contracts.parse(read_file(directory / contracts.FILE_NAME, _MAX_TEXT_BYTES))
    _check_listing(directory, contract)
    limits = dict.fromkeys(
        (*contract.labels.values(), *contract.vocabularies.values()), _MAX_TEXT_BYTES
    )
    tokenisation = contract.tokenisation
    if tokenisation and tokenisation.model and tokenisation.rule == "tokenizer-json":
        limits[tokenisation.model] = _MAX_TOKENIZER_BYTES
    files = {
        name: read_file(directory / name, limits.get(name, _MAX_FILE_BYTES))
        for name in contract.files
    }
    for name, data in files.items():
        if (actual := hashlib.sha256(data).hexdigest()) != contract.files[name]:
            raise BrokenBundle(f"{name}: expected SHA-256 {contract.files[name]}, got {actual}")
        if name.endswith(".onnx"):
            external_data.refuse(data, name)
    texts = _texts("labels", contract.labels, files)
    texts |= _texts("vocabularies", contract.vocabularies, files)
    model = tokenisation.model if tokenisation else None
    if model is not None and model not in files:
        raise BrokenBundle(f"tokenisation.model: expected a listed file, got {model!r}")
    return Bundle(contract, MappingProxyType(files), MappingProxyType(texts))


def is_pair(directory: Path) -> bool:
    """Whether a version directory has two graphs, by its file names alone; `read` verifies it."""
    return os.path.lexists(directory / contracts.FILE_NAME) and any(
        os.path.lexists(directory / name) for name in (ENCODER, DECODER)
    )


def read_without_contract(directory: Path, file: str = MODEL) -> bytes:
    """Read the graph `file` of a version directory without a contract.

    BrokenBundle if it is unsafe, or if the directory is a bundle whose contract is not yet there.
    """
    directory = _real_directory(directory)
    if os.path.lexists(directory / golden.FILE_NAME):
        raise BrokenBundle(f"{directory}: expected {contracts.FILE_NAME}, which is written last")
    model = read_file(directory / file)
    external_data.refuse(model, file)
    return model


def read_model_file(model_directory: Path, file: str, limit_bytes: int) -> bytes | None:
    """Read a file beside the version directories; None if it is absent, BrokenBundle if unsafe."""
    path = model_directory / file
    _check_directory(model_directory)
    return read_file(path, limit_bytes) if os.path.lexists(path) else None


def read_file(path: Path, limit_bytes: int = _MAX_FILE_BYTES) -> bytes:
    """Read a regular file; BrokenBundle if it is a link, another kind of file, or too large."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        kind = "a link" if path.is_symlink() else f"an error: {error.strerror}"
        raise BrokenBundle(f"{path.name}: expected a regular file, got {kind}") from error
    try:
        status = os.fstat(descriptor)
        _check_status(path.name, status, limit_bytes)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(status.st_size + 1)
    except OSError as error:
        raise BrokenBundle(f"{path.name}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) != status.st_size:
        raise BrokenBundle(
            f"{path.name}: expected {status.st_size} bytes, it changes as it is read"
        )
    return data


def _real_directory(directory: Path) -> Path:
    """The absolute directory; BrokenBundle if it or the model directory above it is a link."""
    # `resolve` would follow the links that this check must find.
    directory = Path(os.path.abspath(directory))  # noqa: PTH100
    for part in (directory.parent, directory):
        _check_directory(part)
    return directory


def _check_directory(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BrokenBundle(f"{path}: expected a directory: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise BrokenBundle(f"{path}: expected a directory, got {_kind(mode)}")


def _check_status(name: str, status: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BrokenBundle(f"{name}: expected a regular file, got {_kind(status.st_mode)}")
    if status.st_nlink != 1:
        raise BrokenBundle(f"{name}: expected one hard link, got {status.st_nlink} hard links")
    if status.st_size > limit_bytes:
        raise BrokenBundle(f"{name}: expected at most {limit_bytes} bytes, got {status.st_size}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a directory", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _check_listing(directory: Path, contract: Contract) -> None:
    present = {entry.name for entry in directory.iterdir()} - {contracts.FILE_NAME}
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
