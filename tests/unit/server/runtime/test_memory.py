"""Memory limits of a process."""

from pathlib import Path

import pytest

from weir.server.runtime import memory

MIB = 2**20


def group(root: Path, path: str, **files: object) -> None:
    directory = root / path
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (directory / name.replace("__", ".")).write_text(f"{value}\n")


def of_cgroup(membership: str, mount: Path) -> tuple[int, int] | None:
    """Limit and use."""
    found = memory.of_cgroup(membership, mount)
    return (found[0].limit_bytes, found[0].used()) if found else None


def test_smallest_limit_of_the_groups_of_version_2_counts(tmp_path: Path) -> None:
    stat = "anon 1\ninactive_file 30\nactive_file 5"
    group(tmp_path, "pod", memory__max=700, memory__current=500, memory__stat=stat)
    group(tmp_path, "pod/box", memory__max="max", memory__current=90, memory__stat="anon 1")

    assert of_cgroup("0::/pod/box\n", tmp_path) == (700, 470)


@pytest.mark.parametrize("path", ["/docker/0123", "/"], ids=["path outside", "path within"])
def test_limit_of_version_1_is_found_within_a_container(tmp_path: Path, path: str) -> None:
    files = {"memory__limit_in_bytes": 900, "memory__usage_in_bytes": 400}
    group(tmp_path, "memory", **files, memory__stat="cache 7\ntotal_inactive_file 100")

    assert of_cgroup(f"4:cpu:/x\n3:memory:{path}\n0::/\n", tmp_path) == (900, 300)


@pytest.mark.parametrize(
    "limit", [0x7FFFFFFFFFFFF000, "max", ""], ids=["largest", "max", "unreadable"]
)
def test_group_without_a_limit_has_none(tmp_path: Path, limit: object) -> None:
    group(tmp_path, "memory", memory__limit_in_bytes=limit)

    assert of_cgroup("3:memory:/\n", tmp_path) is None


def test_process_has_a_limit_and_uses_a_part_of_it() -> None:
    found = memory.limits()

    assert found == sorted(found, key=lambda limit: limit.limit_bytes)
    assert all(0 < limit.used() < limit.limit_bytes for limit in found)
