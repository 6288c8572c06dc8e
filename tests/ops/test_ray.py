"""`deploy/ray/score.py` on a real Ray cluster of two nodes, of which one is killed."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.helpers import onnx_models
from tests.helpers.ports import free_port
from tests.helpers.waiting import wait_until
from weir.score.__main__ import main

pytestmark = [pytest.mark.ops, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "ray" / "score.py"
RAY = Path(sys.executable).with_name("ray")
ROWS = 300_000
"""19 parts."""
X = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4) / 8
BAD = [3, 123_456, ROWS - 1]
PATIENCE_S = 240.0


class Cluster:
    """Ray nodes on this machine.

    Args:
        folder: for Ray's sockets and logs; its name must be short.
    """

    def __init__(self, folder: Path) -> None:
        self.faults = folder
        self.environment: dict[str, str] = {}
        self._folder = folder
        self._port = free_port()
        self._environment = {
            **os.environ,
            "FAULTS": str(folder),
            "PYTHONPATH": str(Path(__file__).with_name("ray_faults")),
            # Ray's processes listen on every interface.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start(self, name: str, cpus: int, host: str, **environment: str) -> None:
        """Start a node; the first one is the head.

        Args:
            host: an address of the loopback network other than 127.0.0.1, which Ray replaces.
            environment: of the node's processes.
        """
        folder = self._folder / name
        folder.mkdir()
        role = ["--head", f"--port={self._port}", "--include-dashboard=false"]
        if self.environment:
            role = [f"--address={self.environment['RAY_ADDRESS']}"]
        else:
            self.environment = {**self._environment, "RAY_ADDRESS": f"{host}:{self._port}"}
        command = [
            str(RAY),
            "start",
            *role,
            f"--node-ip-address={host}",
            f"--num-cpus={cpus}",
            f"--object-store-memory={200 << 20}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--dashboard-agent-listen-port=0",
            "--disable-usage-stats",
        ]
        # The working directory tells a node's processes from others; Ray keeps it.
        subprocess.run(
            command,
            cwd=folder,
            env=self._environment | environment,
            check=True,
            timeout=PATIENCE_S,
            stdout=subprocess.DEVNULL,
        )

    def kill(self, name: str = "") -> None:
        """Kill every process of a node, or of all nodes."""
        while found := _processes_in(self._folder / name):
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def _processes_in(folder: Path) -> list[int]:
    """The live processes whose working directory is a folder, or one below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder))
        try:
            yield cluster
        finally:
            cluster.kill()


def _write_rows(folder: Path) -> None:
    """Two files of notes, ids and rows, of which some have no values."""
    folder.mkdir()
    rows = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 4)
    rows = pa.array(
        [None if n in BAD else row for n, row in enumerate(rows.to_pylist())], rows.type
    )
    notes = [None if n % 3 else f"row {n}" for n in range(ROWS)]
    table = pa.table({"note": notes, "id": range(ROWS), "pixels": rows})
    for name, start, stop in (("0", 0, 100_000), ("1", 100_000, ROWS)):
        pq.write_table(table.slice(start, stop - start), folder / f"{name}.parquet")


def test_a_wrong_column_ends_before_the_cluster_is_asked(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_models.affine())
    pq.write_table(pa.table({"id": [1], "pixels": [[1.0] * 4]}), tmp_path / "in.parquet")

    run = subprocess.run(
        [sys.executable, SCRIPT, "model.onnx", "--in=in.parquet", "--out=out"],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert run.returncode == 2
    assert "expected columns for 'x', got 'id', 'pixels'" in run.stderr.splitlines()[-1]


def test_each_row_is_written_once_when_a_node_and_a_writer_die(
    cluster: Cluster, tmp_path: Path
) -> None:
    model = tmp_path / "models" / "affine" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(onnx_models.affine())
    _write_rows(tmp_path / "in")
    arguments = [
        str(model.parents[1]),
        f"--in={tmp_path / 'in'}",
        "--columns=x=pixels",
        "--keep=id",
        "--keep=note",
    ]
    # As many CPUs as two actors and a task need, once the other node is gone.
    cluster.start("head", 3, "127.0.0.2")
    cluster.start("other", 2, "127.0.0.3", STOPS="1")

    with subprocess.Popen(
        [sys.executable, SCRIPT, *arguments, f"--out={tmp_path / 'out'}", "--actors=2"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            reached = [cluster.faults / name for name in ("scoring", "written")]
            wait_until(
                lambda: run.poll() is not None or all(each.exists() for each in reached),
                "no actor of the other node scored, or nothing was written",
                PATIENCE_S,
            )
            assert run.poll() is None
            cluster.kill("other")
            said, _ = run.communicate(timeout=PATIENCE_S)
        finally:
            run.kill()

    assert run.returncode == 0
    # Ray's own messages stand there too.
    assert f"{tmp_path / 'out'}: {ROWS:,} rows; {len(BAD)} have an error" in said.splitlines()
    scores = ds.dataset(tmp_path / "out").to_table()
    assert np.array_equal(np.bincount(scores["id"]), np.ones(ROWS))
    assert np.array_equal(scores["id"], np.arange(ROWS))
    cells = scores["y"].to_pylist()
    good = np.delete(np.arange(ROWS), BAD)
    assert np.array_equal([cells[n] for n in good], 2 * X[good] + 1)
    assert all(cells[n] is None for n in BAD)
    assert main([*arguments, f"--out={tmp_path / 'scores.parquet'}"]) == 0
    assert scores.equals(pq.read_table(tmp_path / "scores.parquet"))
