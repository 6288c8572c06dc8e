"""Model source: what a server is given to serve, a repository or one model.

    models/               a repository: <name>/<version>/
    models/lenet5/        a model's directory
    models/lenet5/2/      a bundle's directory
    lenet5.onnx           an ONNX file, with its external data beside it
    /mnt/models/          a directory that holds one ONNX file, and perhaps a config.pbtxt

A directory that could be several of these is a repository.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from weir.bundle.contract import FILE_NAME as CONTRACT_FILE
from weir.bundle.errors import InvalidName
from weir.bundle.escaping import short_list
from weir.bundle.model_formats import is_model_file
from weir.bundle.reader import DECODER, ENCODER, MODEL, is_pair
from weir.bundle.repository import check_name, is_version_name
from weir.bundle.repository_files import NO_LINKS, LinkRoots
from weir.server.errors import ConfigError
from weir.server.repository.plain_model import ONNX_SUFFIX
from weir.server.repository.scan import ModelDirectory, scan, scan_model, scan_version

_EXPECTED = "MODELS: expected a model repository, an ONNX file or a bundle, got"
_FIRST_VERSION = 1


class ModelSource(Protocol):
    """Where models are found."""

    @property
    def root(self) -> Path:
        """The directory whose path clients must not see."""

    def scan(self, links: LinkRoots = NO_LINKS) -> tuple[dict[str, ModelDirectory], list[str]]:
        """The models by name, and remarks; see `scan.scan`."""

    def scan_model(self, name: str, links: LinkRoots = NO_LINKS) -> ModelDirectory | None:
        """One model, even without versions; None if there is none of that name."""


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """A directory of models."""

    root: Path

    def scan(self, links: LinkRoots = NO_LINKS) -> tuple[dict[str, ModelDirectory], list[str]]:
        """See `ModelSource`."""
        return scan(self.root, links)

    def scan_model(self, name: str, links: LinkRoots = NO_LINKS) -> ModelDirectory | None:
        """See `ModelSource`."""
        return scan_model(self.root / name, links)


@dataclass(frozen=True, slots=True)
class SingleModel:
    """One model under a name of its own.

    Attributes:
        path: the model's directory; of a version alone, its directory or its ONNX file.
        version: the number of a version alone; None for a model's directory.
    """

    name: str
    path: Path
    version: int | None = None

    @property
    def root(self) -> Path:
        """See `ModelSource`."""
        return self.path.parent

    def scan(self, links: LinkRoots = NO_LINKS) -> tuple[dict[str, ModelDirectory], list[str]]:
        """See `ModelSource`."""
        model = self.scan_model(self.name, links)
        if model is None:
            return {}, []
        is_found = model.versions or not model.is_readable
        return ({self.name: model} if is_found else {}), list(model.remarks)

    def scan_model(self, name: str, links: LinkRoots = NO_LINKS) -> ModelDirectory | None:
        """See `ModelSource`."""
        if name != self.name:
            return None
        if self.version is None:
            return scan_model(self.path, links, self.name)
        return scan_version(self.name, self.version, self.path, links)


def open_source(path: Path, name: str | None = None) -> ModelSource:
    """The source at a path of the operator's.

    Args:
        name: of the one model; None for the one that its path gives.

    Raises:
        ConfigError: there is nothing to serve, or it has no name, or a name and several models.
    """
    try:
        if path.is_dir():
            return _open_directory(path, name)
        if path.exists():
            return _open_file(path, name)
    except PermissionError as error:
        raise ConfigError(f"{_EXPECTED} {str(path)!r}: {error.strerror}") from None
    raise ConfigError(f"{_EXPECTED} {str(path)!r}, which does not exist")


def _open_file(path: Path, name: str | None) -> SingleModel:
    # The directory alone: data beside the file is found by the file's own name.
    directory = Path(os.path.realpath(path.parent))
    is_bundle = os.path.lexists(directory / CONTRACT_FILE)
    if is_bundle and path.name == MODEL:
        return _version_directory(directory, name)
    if path.name == CONTRACT_FILE or (path.name in (ENCODER, DECODER) and is_pair(directory)):
        raise ConfigError(f"{_EXPECTED} the file {path.name!r} of a bundle: give its directory")
    if path.suffix != ONNX_SUFFIX:
        hint = ": export it to ONNX first" if is_model_file(path.name) else ""
        raise ConfigError(f"{_EXPECTED} the file {path.name!r}{hint}")
    if path.name == MODEL:
        named, number = _named_by(directory)
    else:
        named, number = path.stem, _FIRST_VERSION
    return SingleModel(_checked(name, named), directory / path.name, number)


def _open_directory(path: Path, name: str | None) -> ModelSource:
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    if CONTRACT_FILE in names:
        return _version_directory(Path(os.path.realpath(path)), name)
    has_versions = any(map(_is_version, _directories(path)))
    models = [each for each in _directories(path) if any(map(_is_version, _directories(each)))]
    graphs = [each for each in names if each.endswith(ONNX_SUFFIX)]
    if has_versions and not models:
        return _model_directory(path, name)
    if MODEL in graphs:
        graphs = [MODEL]
    if len(graphs) == 1 and not any(map(_holds_graph, _directories(path))) and not models:
        return _open_file(path / graphs[0], name)
    if name is None:
        return ModelRepository(path)
    if len(models) != 1 or has_versions:
        listed = short_list([each.name for each in models]) or "none"
        raise ConfigError(f"name: expected one model to serve as {name!r}, got {listed} in {path}")
    return _model_directory(models[0], name)


def _model_directory(path: Path, name: str | None) -> SingleModel:
    path = Path(os.path.realpath(path))
    return SingleModel(_checked(name, path.name), path)


def _version_directory(path: Path, name: str | None) -> SingleModel:
    named, number = _named_by(path)
    return SingleModel(_checked(name, named), path, number)


def _named_by(directory: Path) -> tuple[str, int]:
    """The model and the version that a directory's name gives its contents."""
    if is_version_name(directory.name):
        return directory.parent.name, int(directory.name)
    return directory.name, _FIRST_VERSION


def _checked(name: str | None, named: str) -> str:
    """The name that is given, or else that of the path."""
    try:
        check_name(named if name is None else name)
    except InvalidName as error:
        hint = ": give another with --name" if name is None else ""
        raise ConfigError(f"{error}{hint}") from None
    return named if name is None else name


def _directories(path: Path) -> Iterator[Path]:
    """The directories in a directory; none if it cannot be listed."""
    try:
        entries = sorted(path.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir():
            yield entry


def _is_version(path: Path) -> bool:
    """Whether a directory is a version of a model."""
    return is_version_name(path.name) and _holds_graph(path)


def _holds_graph(path: Path) -> bool:
    """Whether a contract or an ONNX file lies in a directory."""
    try:
        names = [entry.name for entry in path.iterdir()]
    except OSError:
        return False
    return CONTRACT_FILE in names or any(name.endswith(ONNX_SUFFIX) for name in names)
