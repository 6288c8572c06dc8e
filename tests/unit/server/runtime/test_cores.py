import os
from collections.abc import Callable
from pathlib import Path

import pytest

from weir.server.runtime.cores import usable_cores

Write = Callable[[dict[str, str]], int]


@pytest.fixture
def cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """The usable cores of a process on 8 cores, with these files of its control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def cores(files: dict[str, str]) -> int:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8", "surrogateescape")
        return usable_cores(tmp_path / "self", tmp_path / "cgroup")

    return cores


V2 = "0::/pod/container\n"
V1 = "12:memory:/pod\n4:cpu,cpuacct:/pod/container\n1:cpuset:/\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 8, id="no control groups"),
        pytest.param({"self": V2, "cgroup/pod/container/cpu.max": "max 100000\n"}, 8, id="v2 max"),
        pytest.param(
            {"self": V2, "cgroup/pod/container/cpu.max": "250000 100000\n"}, 2, id="v2 quota"
        ),
        pytest.param(
            {
                "self": V2,
                "cgroup/pod/container/cpu.max": "400000 100000\n",
                "cgroup/pod/cpu.max": "300000 100000\n",
            },
            3,
            id="v2 quota of the parent",
        ),
        pytest.param({"self": "0::/\n", "cgroup/cpu.max": "100000 50000\n"}, 2, id="v2 root"),
        pytest.param({"self": V2, "cgroup/cpu.max": "20000 100000\n"}, 1, id="v2 part of a core"),
        pytest.param({"self": V2, "cgroup/cpu.max": "9900000 100000\n"}, 8, id="v2 above affinity"),
        pytest.param({"self": V2, "cgroup/cpu.max": "\n"}, 8, id="v2 empty"),
        pytest.param(
            {
                "self": V1,
                "cgroup/cpu,cpuacct/pod/container/cpu.cfs_quota_us": "300000\n",
                "cgroup/cpu,cpuacct/pod/container/cpu.cfs_period_us": "100000\n",
            },
            3,
            id="v1 quota",
        ),
        pytest.param(
            {
                "self": V1,
                "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2,
            id="v1 container sees its group as the root",
        ),
        pytest.param(
            {
                "self": V1,
                "cgroup/cpu,cpuacct/pod/container/cpu.cfs_quota_us": "-1\n",
                "cgroup/cpu,cpuacct/pod/container/cpu.cfs_period_us": "100000\n",
            },
            8,
            id="v1 no quota",
        ),
        pytest.param(
            {
                "self": "3:memory:/pod\udcff\n0::/pod\udcff\n",
                "cgroup/pod\udcff/cpu.max": "200000 100000\n",
            },
            2,
            id="v2 name that is no text",
        ),
        pytest.param(
            {"self": "3:memory:/pod\n", "cgroup/memory/pod/cpu.max": "100000 100000\n"},
            8,
            id="other controller",
        ),
    ],
)
def test_cores_are_those_of_affinity_and_quota(
    files: dict[str, str], expected: int, cores: Write
) -> None:
    assert cores(files) == expected


def test_this_process_has_a_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
