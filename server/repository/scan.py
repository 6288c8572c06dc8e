"""What a model repository holds on disk: names, versions, and whether their files changed.

Only names and the files' status are looked at; what is in them, the loader reads, and proves.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from weir.bundle import reader, versions
from weir.bundle.contract import FILE_NAME
from weir.bundle.errors import InvalidName
from weir.bundle.repository import check_name, strays
from weir.bundle.repository import versions as version_numbers
from weir.bundle.versions import FILE_NAME as VERSIONS_FILE
from weir.bundle.versions import Versions
from weir.server.repository import triton
from weir.server.repository.loader import served_name
from weir.server.repository.triton import FILE_NAME as TRITON_FILE

Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a version; equal where nothing changed.

    Attributes:
        served: the names it is asked by: one, of a pair three.
        stamps: name, inode, size and time of change of each file.
        is_complete: whether nobody is still copying it, as far as names tell.
    """

    served: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A directory that is a model.

    Attributes:
        versions: by number.
        beside: the stamps of the files that lie beside them: what is said of the versions, labels.
        remarks: what an operator should know of the rest that is in it.
        is_readable: whether anything can be said of it; if not, it may have versions that cannot be seen.
    """

    name: str
    directory: Path
    versions: Mapping[int, Files]
    beside: tuple[Stamp, ...] = ()
    remarks: tuple[str, ...] = ()
    is_readable: bool = True


def scan(root: Path) -> tuple[dict[str, Found], list[str]]:
    """Every model of a repository, by name, and remarks on what is none; of what cannot be read, the name alone.

    Raises:
        OSError: the directory cannot be listed.
    """
    found: dict[str, Found] = {}
    taken: dict[str, str] = {}
    remarks: list[str] = []
    for directory in sorted(root.iterdir()):
        one = scan_model(directory)
        if one is None:
            continue
        remarks.extend(one.remarks)
        if one.name in taken:
            # A pair comes first: its name is how the other begins.
            remarks.append(
                f"model passed over model={one.name} reason='{one.name}' is the name of a graph "
                f"of the pair '{taken[one.name]}'"
            )
        elif one.versions or not one.is_readable:
            found[one.name] = one
            for files in one.versions.values():
                taken.update(dict.fromkeys(files.served, one.name))
    return found, remarks


def scan_model(directory: Path) -> Found | None:
    """One model, perhaps without versions; None for what is none."""
    name = directory.name
    try:
        check_name(name)
        if not directory.is_dir():
            return None
        numbers = version_numbers(directory)
        others = strays(directory)
        beside = _stamps(_beside(directory))
    except InvalidName:
        return None
    except OSError as error:
        remark = f"model cannot be read model={name} reason={error.strerror}"
        return Found(name, directory, {}, remarks=(remark,), is_readable=False)
    remarks = [f"this is no version model={name} name={other!r}" for other in others]
    if not numbers:
        remarks.append(f"model has no version directory model={name}")
    shared = tuple(stamp for stamp in beside if stamp[0] != VERSIONS_FILE)
    files = {number: _files(directory / str(number), shared) for number in numbers}
    return Found(name, directory, files, beside, tuple(remarks))


def steady(now: Found, before: Found | None, serving: Mapping[int, Files]) -> Found:
    """What counts of a directory that somebody may be at work in: what was so at two looks in a row.

    Args:
        now: what this look found.
        before: what the last one found.
        serving: what serves was loaded from: it counts while its files change, and at the first look that misses it.
    """
    known = before.versions if before else {}
    counted = {
        number: files
        for number, files in now.versions.items()
        if files.is_complete and known.get(number) == files
    }
    here = now.versions.keys() | known.keys()
    changing = {number: files for number, files in serving.items() if number in here}
    return replace(now, versions={**changing, **counted})


def said_of(directory: Path) -> Versions:
    """What is said of a model's versions, by Weir's own file or else by Triton's.

    Raises:
        BundleError, ModelLoadError: nobody can make anything of a file.
    """
    said = versions.read(directory)
    config = triton.read_config(directory) if said.policy is None else None
    return replace(said, policy=config.policy) if config else said


def without_root(reason: str, root: Path) -> str:
    """What went wrong, without the path of the repository: that is nobody's business."""
    # As `bundle` writes it: without the dots that `Path.absolute` would leave in.
    return reason.replace(f"{os.path.abspath(root)}{os.sep}", "")  # noqa: PTH100


def _beside(directory: Path) -> list[Path]:
    """What all versions of a model share: what is said of them, a Triton configuration, labels."""
    return sorted(
        path for path in directory.iterdir() if not path.name.startswith(".") and not path.is_dir()
    )


def _files(directory: Path, beside: tuple[Stamp, ...]) -> Files:
    """The files of a version, of a plain one with those that lie beside it."""
    parts = ("encoder", "decoder", None) if reader.is_pair(directory) else (None,)
    served = tuple(served_name(directory.parent.name, part) for part in parts)
    try:
        stamps = _stamps(sorted(directory.iterdir()))
    except OSError:
        # Whatever it is, the loader will say it.
        return Files(served, (), is_complete=False)
    if any(name == FILE_NAME for name, *_ in stamps):
        return Files(served, stamps, is_complete=True)
    is_configured = any(name == TRITON_FILE for name, *_ in beside)
    return Files(served, (*beside, *stamps), is_complete=is_configured)


def _stamps(paths: list[Path]) -> tuple[Stamp, ...]:
    """Of those that exist."""
    stamps = []
    for path in paths:
        if os.path.lexists(path):
            status = path.lstat()
            stamps.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)
