"""CPU cores that this process may use: its affinity and the quota of its control groups."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMBERSHIPS = Path("/proc/self/cgroup")
_HIERARCHIES = Path("/sys/fs/cgroup")


def usable_cores(memberships: Path = _MEMBERSHIPS, hierarchies: Path = _HIERARCHIES) -> int:
    """The number of cores, at least 1; a fraction of a core does not count."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = min(_quotas(memberships, hierarchies), default=float(cores))
    return max(1, min(cores, int(quota)))


def _quotas(memberships: Path, hierarchies: Path) -> Iterator[float]:
    """The quotas, in cores, of the process's groups and of the groups that contain them."""
    for line in _read(memberships).splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        path = PurePosixPath(group.lstrip("/"))
        # A container may see its group as the root of the mount, while the membership names the
        # path on the host. Files that do not exist are skipped.
        for directory in (path, *path.parents):
            quota = _quota(hierarchies / controllers / directory)
            if quota is not None:
                yield quota


def _quota(group: Path) -> float | None:
    """The quota of one group (`cpu.max` in version 2, `cpu.cfs_*` in version 1), if it has one."""
    limit = _read(group / "cpu.max").split() or [
        *_read(group / "cpu.cfs_quota_us").split(),
        *_read(group / "cpu.cfs_period_us").split(),
    ]
    try:
        quota, period = map(int, limit)
    except ValueError:  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: Path) -> str:
    try:
        # The name of a group may have any bytes.
        return path.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
