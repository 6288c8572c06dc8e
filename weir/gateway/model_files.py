"""Files of a served version, below the folder or file that the gateway is given.

It may be what `weir serve` takes: a repository, a model's directory, a bundle, or an ONNX file.
Names come from callers: one that cannot be a directory of a repository is not looked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weir.bundle.contract import FILE_NAME as CONTRACT_FILE
from weir.bundle.errors import InvalidName
from weir.bundle.repository import check_name, is_version_name
from weir.client.errors import NotFound

_ONNX_SUFFIX = ".onnx"
_PAIR_SUFFIXES = {".encoder": "encoder", ".decoder": "decoder"}

Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a version; equal if nothing changed.

    Attributes:
        directory: holds them.
        file: the ONNX file of a version without a contract; None of a bundle.
        graph: `encoder` or `decoder` if the name is that of one graph of a pair.
        stamps: name, inode, size and time of change of each file.
    """

    directory: Path
    file: str | None
    graph: str | None
    stamps: tuple[Stamp, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return sum(size for _, _, size, _ in self.stamps)


def find(models: Path, name: str, version: int, file: str) -> ModelFiles:
    """The files of a version.

    Args:
        models: the operator's path.
        name: of the model, as in requests.
        file: the name that an ONNX file without a contract has.

    Raises:
        NotFound: they are not there.
    """
    try:
        check_name(name)
        for model, graph in _names(name):
            directory = _version_directory(models, model, version)
            if directory is None:
                continue
            if models.is_file() and not (directory / CONTRACT_FILE).exists():
                return ModelFiles(directory, models.name, None, _stamps([models]))
            has_contract = (directory / CONTRACT_FILE).exists()
            if graph is None or has_contract:
                stamps = _stamps(sorted(directory.iterdir()))
                return ModelFiles(directory, None if has_contract else file, graph, stamps)
    except (InvalidName, OSError):
        pass
    raise NotFound(
        f"{name}: version {version} is not in the folder of models that the gateway is given "
        "(--models)"
    )


def _names(name: str) -> Iterator[tuple[str, str | None]]:
    """The model that a name may be of, with the graph of a pair."""
    yield name, None
    for suffix, graph in _PAIR_SUFFIXES.items():
        if name.endswith(suffix):
            yield name.removesuffix(suffix), graph


def _version_directory(models: Path, name: str, version: int) -> Path | None:
    """Where a version lies; None if it is not there."""
    if models.is_file():
        return models.parent
    in_repository = models / name / str(version)
    if in_repository.is_dir():
        return in_repository
    of_model = models / str(version)
    if of_model.is_dir() and _holds_graph(of_model):
        return of_model
    is_version = not is_version_name(models.name) or int(models.name) == version
    return models if is_version and _holds_graph(models) else None


def _holds_graph(directory: Path) -> bool:
    names = [path.name for path in directory.iterdir()]
    return CONTRACT_FILE in names or any(name.endswith(_ONNX_SUFFIX) for name in names)


def _stamps(paths: list[Path]) -> tuple[Stamp, ...]:
    status = [(path.name, path.stat()) for path in paths]
    return tuple((name, each.st_ino, each.st_size, each.st_mtime_ns) for name, each in status)
