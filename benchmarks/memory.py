"""Memory growth of a server whose requests all have different shapes.

    .venv/bin/python benchmarks/memory.py models/tagger/1 [--requests 10000] [--longest 64] \
        [--json FILE]

A server answers requests of random lengths and one row, 16 at a time. Exits with 1 if its memory
grows by more than a tenth after the first thousand requests.
"""

import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import harness
from benchmarks.lib.harness import console
from benchmarks.lib.raw import raw_session
from benchmarks.lib.servers import Server, serving
from weir import Client
from weir.bundle.reader import MODEL, read
from weir.bundle.sequences import ValueRange

Inputs = dict[str, NDArray[Any]]

IN_FLIGHT = 16
WARM_UP = 1000
MOST_GROWTH = 0.1
DTYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
}


def main() -> None:
    """Send requests, read the memory, and compare."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("bundle", type=Path, help="the version's directory")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--longest", type=int, default=64)
    given = harness.parse(parser)
    count = 1000 if given.quick else given.requests
    environment = harness.start()
    with tempfile.TemporaryDirectory() as models:
        name = given.bundle.resolve().parent.name
        shutil.copytree(given.bundle, Path(models) / name / "1")
        with serving(Path(models), [name]) as server:
            requests = random_requests(given.bundle, given.longest)
            sizes_mib = watch(server, name, requests, count)
    growth = sizes_mib[-1] / sizes_mib[1] - 1
    console.print(
        f"{name}: {sizes_mib[0]:.0f} MiB when loaded, {sizes_mib[1]:.0f} after {WARM_UP} requests, "
        f"{sizes_mib[-1]:.0f} after {count} more: {growth:+.1%}"
    )
    harness.write(given.json, {**environment, "sizes_mib": sizes_mib, "growth": growth}, [])
    sys.exit(growth > MOST_GROWTH)


def watch(server: Server, name: str, requests: Iterator[Inputs], count: int) -> list[float]:
    """Memory after loading, after the warm-up, and after every thousand of `count` requests."""
    sizes_mib = [resident_mib(server.pid)]
    with Client(server.target) as client, ThreadPoolExecutor(IN_FLIGHT) as threads:
        for start in range(-WARM_UP, count, 1000):
            number = min(1000, count - start)
            answers = threads.map(partial(client.infer, name), islice(requests, number))
            deque(answers, maxlen=0)
            sizes_mib.append(resident_mib(server.pid))
            console.print(f"{start + number:6} requests: {sizes_mib[-1]:.1f} MiB")
    return sizes_mib


def resident_mib(pid: int) -> float:
    """Resident memory of a process, unswapped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def random_requests(directory: Path, longest: int) -> Iterator[Inputs]:
    """Endless rows with random sizes of every padded axis and values within their ranges."""
    contract = read(directory).contract
    tensors = raw_session(directory / MODEL, threads=1).get_inputs()
    lengths = {axis.length_input for axis in contract.padded_axes.values()}
    generator = np.random.default_rng(0)
    while True:
        sizes = {
            axis: int(generator.integers(1, min(padded.maximum, longest) + 1))
            for axis, padded in contract.padded_axes.items()
        }
        inputs = {}
        for tensor in tensors:
            if tensor.name not in lengths:
                shape = [
                    sizes.get(axis, 1) if isinstance(axis, str) else axis for axis in tensor.shape
                ]
                bounds = contract.value_ranges.get(tensor.name, ValueRange(maximum=1))
                values = generator.integers(bounds.minimum, bounds.maximum + 1, shape)
                inputs[tensor.name] = values.astype(DTYPES[tensor.type])
        yield inputs


if __name__ == "__main__":
    main()
