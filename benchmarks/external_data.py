"""Memory that a load takes, with the weights inside the graph and beside it.

    .venv/bin/python benchmarks/external_data.py [--mib 1024 3072] [--json FILE]

Each server loads one model of dense layers of 64 MiB. Its resident memory, with the files in memory
that the machine's processes share, is read every 5 ms until the model is ready. Weights of 2 GiB
and more cannot be inside a graph.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from benchmarks.lib import harness
from benchmarks.lib.harness import Run, console
from benchmarks.lib.servers import serving

WIDTH = 4096
LAYER_MIB = 64
DATA = "model.onnx.data"
MOST_INSIDE_MIB = 2000
NAME = "dense"


def main() -> None:
    """Load each model once per round, and print the memory."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--mib", type=int, nargs="+", default=[1024, 3072], help="of weights")
    given = harness.parse(parser)
    environment = harness.start()
    runs = []
    for mib in [LAYER_MIB] if given.quick else given.mib:
        kinds = ["beside"] if mib > MOST_INSIDE_MIB else ["inside", "beside"]
        with tempfile.TemporaryDirectory() as folder:
            for kind in kinds:
                write_model(Path(folder) / kind / NAME / "1", mib // LAYER_MIB, kind)
            for number in range(given.rounds):
                for kind in kinds:
                    figures = measure(Path(folder) / kind)
                    runs.append(Run(kind, f"{mib} MiB", number, figures))
    columns = [
        harness.Column("peak, MiB", "peak_mib"),
        harness.Column("loaded, MiB", "loaded_mib"),
        harness.Column("seconds", "seconds", ".1f"),
    ]
    console.print(harness.table(runs, columns, title="weights"))
    harness.write(given.json, environment, runs)


def write_model(directory: Path, layers: int, kind: str) -> None:
    """A chain of dense layers with random weights."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    size = 4 * WIDTH * WIDTH
    tensors, nodes = [], []
    with (directory / DATA).open("wb") as file:
        for number in range(layers):
            weight = generator.standard_normal((WIDTH, WIDTH), np.float32).tobytes()
            tensor = TensorProto(
                name=f"w{number}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH]
            )
            if kind == "inside":
                tensor.raw_data = weight
            else:
                file.write(weight)
                tensor.data_location = TensorProto.EXTERNAL
                facts = {"location": DATA, "offset": number * size, "length": size}
                for key, value in facts.items():
                    tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            nodes.append(
                helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"])
            )
    graph = helper.make_graph(nodes, NAME, [floats("x0")], [floats(f"x{layers}")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    if kind == "inside":
        (directory / DATA).unlink()


def floats(name: str) -> ValueInfoProto:
    """Rows of floats."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH])


def measure(models: Path) -> dict[str, float]:
    """Start a server; its memory at the peak of the load and after it."""
    started_s = time.monotonic()
    with watched() as samples, serving(models, [NAME]) as server:
        seconds = time.monotonic() - started_s
        time.sleep(1)
        loaded_mib = memory_mib(server.pid)
    return {
        "peak_mib": max(samples), "loaded_mib": loaded_mib, "seconds": seconds,
    }  # fmt: skip


@contextmanager
def watched() -> Iterator[list[float]]:
    """The memory of the youngest server of this process, again and again."""
    samples: list[float] = []
    ended = threading.Event()
    shared_before_mib = shared_mib()

    def watch() -> None:
        children = Path("/proc/self/task").glob("*/children")
        lists = [*children]
        while not ended.wait(0.005):
            pids = [pid for path in lists for pid in read(path).split()]
            if pids:
                samples.append(memory_mib(int(pids[-1])) + shared_mib() - shared_before_mib)

    watcher = threading.Thread(target=watch, name="memory")
    watcher.start()
    try:
        yield samples
    finally:
        ended.set()
        watcher.join()


def memory_mib(pid: int) -> float:
    """Resident memory of a process; 0 if it has ended."""
    return line_mib(read(Path(f"/proc/{pid}/status")), "VmRSS")


def shared_mib() -> float:
    """Files in memory of all processes, which no process may have mapped."""
    return line_mib(read(Path("/proc/meminfo")), "Shmem")


def line_mib(text: str, name: str) -> float:
    """A size of a page of /proc."""
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:")]
    return int(sizes[0]) / 1024 if sizes else 0.0


def read(path: Path) -> str:
    """The text of a page of /proc, which may have ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
