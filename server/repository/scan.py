"""Scan of a model repository on disk: names, versions, and whether their files changed.

Only names and the files' status are read; the loader reads and verifies the contents.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from weir.bundle import reader, versions
from weir.bundle.contract import FILE_NAME
from weir.bundle.errors import InvalidName
from weir.bundle.repository import check_name, invalid_version_names
from weir.bundle.repository import versions as version_numbers
from weir.bundle.repository_files import NO_LINKS, LinkRoots
from weir.bundle.versions import FILE_NAME as VERSIONS_FILE
from weir.bundle.versions import VersionsFile
from weir.server.repository import plain_model, triton
from weir.server.repository.loader import served_name
from weir.server.repository.remarks import (
    on_directory_name,
    on_file,
    on_model,
    on_version,
    on_versions,
)

Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """The files of a version; equal if nothing changed.

    Attributes:
        served: its names in requests: one, or three of a pair.
        stamps: name, inode, size and time of change of each file.
        is_complete: whether it is copied completely, as far as names tell.
    """

    served: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A model's directory.

    Attributes:
        beside: the stamps of the files beside the versions: policy, labels, configuration.
        remarks: for the operator, on the rest of its contents.
        is_readable: if not, it may have versions that the scan cannot see.
        alone: the one version, a directory or an ONNX file, if it is served without policy and
            labels on disk; None: a directory with a directory for each version.
    """

    name: str
    path: Path
    versions: Mapping[int, VersionFiles]
    beside: tuple[Stamp, ...] = ()
    remarks: tuple[str, ...] = ()
    is_readable: bool = True
    alone: Path | None = None

    def version_path(self, number: int) -> Path:
        """Where a version lies: a directory, or an ONNX file."""
        return self.path / str(number) if self.alone is None else self.alone


def scan(root: Path, links: LinkRoots = NO_LINKS) -> tuple[dict[str, ModelDirectory], list[str]]:
    """The models of a repository by name, and remarks; a model that cannot be read has no versions.

    Raises:
        OSError: the directory cannot be listed.
    """
    found: dict[str, ModelDirectory] = {}
    taken: dict[str, str] = {}
    remarks: list[str] = []
    for path in sorted(root.iterdir()):
        model = scan_model(path, links)
        if model is None:
            remarks.extend(_remarks_on(path))
            continue
        remarks.extend(model.remarks)
        if model.name in taken:
            # A pair's directory is sorted before that of its graph's name, which it begins.
            remarks.append(
                f"model directory ignored model={model.name} reason='{model.name}' is the name of "
                f"a graph of the pair '{taken[model.name]}'"
            )
        elif model.versions or not model.is_readable:
            found[model.name] = model
            for files in model.versions.values():
                taken.update(dict.fromkeys(files.served, model.name))
    return found, remarks


def scan_model(
    path: Path, links: LinkRoots = NO_LINKS, name: str | None = None
) -> ModelDirectory | None:
    """One model, perhaps without versions; None if the directory cannot be a model's.

    Args:
        name: in requests; None for the directory's.
    """
    name = name or path.name
    try:
        check_name(name)
        if not path.is_dir():
            return None
        numbers = version_numbers(path)
        others = invalid_version_names(path)
        beside = _stamps(_files_beside(path), links)
    except InvalidName:
        return None
    except OSError as error:
        remark = f"model directory unreadable model={name} reason={error.strerror}"
        return ModelDirectory(name, path, {}, remarks=(remark,), is_readable=False)
    shared = tuple(stamp for stamp in beside if stamp[0] != VERSIONS_FILE)
    files = {number: _version_files(name, path / str(number), shared, links) for number in numbers}
    found = [
        *on_versions(name, others),
        on_model(name, _names(beside), has_versions=bool(numbers)),
        *(on_version(name, number, _names(each.stamps)) for number, each in files.items()),
    ]
    remarks = tuple(remark for remark in found if remark is not None)
    return ModelDirectory(name, path, files, beside, remarks)


def scan_version(name: str, number: int, path: Path, links: LinkRoots = NO_LINKS) -> ModelDirectory:
    """One version alone, a directory or an ONNX file; without versions if it is not there."""
    model = ModelDirectory(name, path.parent, {}, alone=path)
    if not os.path.lexists(path):
        remark = f"model file is missing, the model stays loaded model={name}"
        return replace(model, remarks=(remark,))
    if path.is_dir():
        return replace(model, versions={number: _version_files(name, path, (), links)})
    config = plain_model.config_directory(path) / triton.FILE_NAME
    try:
        # External data usually has the graph's name and one more suffix.
        parts = [each for each in path.parent.iterdir() if each.name.startswith(path.stem)]
        stamps = _stamps(sorted({*parts, config}), links)
    except OSError as error:
        remark = f"model directory unreadable model={name} reason={error.strerror}"
        return replace(model, remarks=(remark,), is_readable=False)
    return replace(model, versions={number: VersionFiles((name,), stamps, is_complete=True)})


def debounce(
    now: ModelDirectory, before: ModelDirectory | None, serving: Mapping[int, VersionFiles]
) -> ModelDirectory:
    """The directory without what is still being written: a version counts if two scans agree on it.

    Args:
        serving: the files that served versions were loaded from. They count while their
            files change, and at the first scan that does not find them.
    """
    known = before.versions if before else {}
    unchanged = {
        number: files
        for number, files in now.versions.items()
        if files.is_complete and known.get(number) == files
    }
    present = now.versions.keys() | known.keys()
    changing = {number: files for number, files in serving.items() if number in present}
    return replace(now, versions={**changing, **unchanged})


def read_policy(model: ModelDirectory, links: LinkRoots = NO_LINKS) -> VersionsFile:
    """The version policy and labels of a model: by `versions.toml`, or else by `config.pbtxt`.

    A version that is served alone has neither.

    Raises:
        BundleError, ModelLoadError: a file is malformed.
    """
    if model.alone is not None:
        return VersionsFile()
    policy = versions.read(model.path, links)
    config = triton.read_config(model.path, model.name, links) if policy.policy is None else None
    return replace(policy, policy=config.policy) if config else policy


def without_root(reason: str, root: Path) -> str:
    """A reason without the path of the repository, which clients must not see."""
    # As `bundle` writes it: without the dots that `Path.absolute` would leave in.
    return reason.replace(f"{os.path.abspath(root)}{os.sep}", "")  # noqa: PTH100


def _files_beside(path: Path) -> list[Path]:
    """The files that all versions of a model share."""
    return sorted(
        each for each in path.iterdir() if not each.name.startswith(".") and not each.is_dir()
    )


def _remarks_on(path: Path) -> list[str]:
    """Remarks on an entry of the repository that is no model's directory."""
    if path.name.startswith("."):
        return []
    remark = on_directory_name(path.name) if path.is_dir() else on_file(path.name)
    return [remark] if remark else []


def _names(stamps: tuple[Stamp, ...]) -> list[str]:
    return [stamp[0] for stamp in stamps]


def _version_files(
    name: str, path: Path, beside: tuple[Stamp, ...], links: LinkRoots
) -> VersionFiles:
    """The files of a version; for a plain model, with the files beside it."""
    parts = ("encoder", "decoder", None) if reader.is_pair(path) else (None,)
    served = tuple(served_name(name, part) for part in parts)
    try:
        stamps = _stamps(sorted(path.iterdir()), links)
    except OSError:
        # The loader reports the reason.
        return VersionFiles(served, (), is_complete=False)
    if any(name == FILE_NAME for name, *_ in stamps):
        return VersionFiles(served, stamps, is_complete=True)
    is_configured = any(name == triton.FILE_NAME for name, *_ in beside)
    return VersionFiles(served, (*beside, *stamps), is_complete=is_configured)


def _stamps(paths: list[Path], links: LinkRoots) -> tuple[Stamp, ...]:
    """The stamps of the files that exist; of a link that is followed, those of its target."""
    stamps = []
    for path in paths:
        if os.path.lexists(path):
            is_followed = bool(links) and path.exists()
            status = path.stat() if is_followed else path.lstat()
            stamps.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)
