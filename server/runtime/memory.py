"""Memory of the process: what it uses, and its limit.

The limit is the smallest of the control group's (cgroup 2 or 1, as Docker and Kubernetes set it),
of the address space (RLIMIT_AS) and of the machine. Where the system does not say, there is none.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
# Version 1 has a number for no limit: the largest that is a multiple of a page.
_NO_LIMIT_BYTES = 1 << 60
_FILE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One limit, and what counts against it.

    Attributes:
        source: `cgroup`, `RLIMIT_AS` or `machine`.
    """

    source: str
    limit_bytes: int
    used: Callable[[], int]

    def used_share(self) -> float:
        """The used share of the limit."""
        return self.used() / self.limit_bytes


def limits() -> list[MemoryLimit]:
    """The limits of this process, the smallest first."""
    found: list[MemoryLimit] = []
    with suppress(OSError, ValueError):
        found += _of_address_space()
    with suppress(OSError, ValueError):
        found += of_cgroup(Path("/proc/self/cgroup").read_text(), _CGROUPS)
    with suppress(OSError, ValueError, AttributeError):
        machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found.append(MemoryLimit("machine", machine_bytes, _ProcessUse(1)))
    return sorted(found, key=lambda limit: limit.limit_bytes)


def _of_address_space() -> Iterator[MemoryLimit]:
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - on Unix only

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield MemoryLimit("RLIMIT_AS", soft, _ProcessUse(0))


def of_cgroup(membership: str, mount: Path) -> list[MemoryLimit]:
    """The smallest limit of the process's control group and of those that contain it.

    Args:
        membership: the text of `/proc/self/cgroup`.
    """
    found = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names, root = ("memory.max", "memory.current", "inactive_file"), mount
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            root = mount / "memory"
        else:
            continue
        group = root / path.lstrip("/")
        # Within a container, the path may be the one outside, and the mount is the group itself.
        groups = (group, *group.parents) if group.is_dir() else (root,)
        for each in groups:
            if each.is_relative_to(root) and (limit_bytes := _limit(each / names[0])):
                used = _CgroupUse(each / names[1], each / "memory.stat", names[2])
                found.append(MemoryLimit("cgroup", limit_bytes, used))
    return sorted(found, key=lambda limit: limit.limit_bytes)[:1]


def _limit(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # "max", or the root, which has no limit
        limit_bytes = int(path.read_text())
        return limit_bytes if limit_bytes < _NO_LIMIT_BYTES else None
    return None


class _CgroupUse:
    """Memory of a control group, without the cache of files that the kernel drops when needed."""

    def __init__(self, use: Path, statistics: Path, cache: str) -> None:
        self._use, self._statistics = _OpenFile(use), _OpenFile(statistics)
        self._cache = re.compile(rf"^{cache} (\d+)$", re.MULTILINE)

    def __call__(self) -> int:
        cached = self._cache.search(self._statistics.read())
        return int(self._use.read()) - (int(cached[1]) if cached else 0)


class _ProcessUse:
    """Memory of this process: field 0 is its address space, 1 what is in memory."""

    def __init__(self, field: int) -> None:
        self._file, self._field = _OpenFile(Path("/proc/self/statm")), field
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def __call__(self) -> int:
        return int(self._file.read().split()[self._field]) * self._page_bytes


class _OpenFile:
    """A file of the kernel that is read again and again, also if no descriptor is left."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self) -> str:
        return os.pread(self._descriptor, _FILE_BYTES, 0).decode()

    def __del__(self) -> None:
        # Absent if the file could not be opened.
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            os.close(descriptor)
