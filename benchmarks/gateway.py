"""LeNet-5 over HTTP, one picture per request: Weir's gateway, MLServer and Triton, on one graph.

    make demo && .venv/bin/python benchmarks/gateway.py [--rivals weir triton ...] [--json FILE]

`h2load --h1` sends a prepared request of the Open Inference Protocol over HTTP/1.1, from 32
connections with one request each. Cases: the picture as JSON numbers, and as binary data beside the
JSON. Before a server is measured, its answers are compared with raw ONNX Runtime. A run is void
unless the server counts every request as answered OK. Servers and their settings are those of
`lenet.py`; Weir runs with `--http-port`, and its CPU time is the sum of server and gateway.

The last question is what an idle gateway costs callers of gRPC: `weir-grpc` is a server without a
gateway, and `weir` the one with it; both answer gRPC calls in the shape 8 x 16.
"""

import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import charts, harness, load, mlserver, servers, triton
from benchmarks.lib.harness import Column, Rival, Target, console
from benchmarks.lib.load import MODEL_INFER, Load
from benchmarks.lib.raw import are_close, raw_session
from benchmarks.lib.servers import Server

MODEL = "lenet5"
WEIR, GRPC_ALONE, TRITON, MLSERVER = "weir", "weir-grpc", "triton", "mlserver"
JSON, BINARY, GRPC = "JSON", "binary", "gRPC 8 x 16"
CONNECTIONS = 32
COLUMNS = (
    Column("calls/s", "calls_per_s"),
    Column("p50 ms", "p50_ms", ".2f"),
    Column("p99 ms", "p99_ms", ".2f"),
    Column("batch", "mean_batch_rows", ".1f", "median"),
    Column("CPU µs/call", "cpu_us", ".0f", "median"),
)
TARGETS = (
    Target("calls_per_s", JSON, WEIR, MLSERVER, 3.0),
    Target("calls_per_s", JSON, WEIR, TRITON, 1.0),
    Target("calls_per_s", BINARY, WEIR, TRITON, 1.0),
    Target("calls_per_s", GRPC, WEIR, GRPC_ALONE, 0.98),
    Target("cpu_us", GRPC, WEIR, GRPC_ALONE, 1.02, at_least=False),
)
_PATH = f"/v2/models/{MODEL}/infer"
_MAX_ROWS = 32
_GRPC_SHAPE = (8, 16)


def main() -> None:
    """Measure, print tables and write the JSON file."""
    parser = harness.arguments(__doc__.splitlines()[0], rounds=5, can_append=True)
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument("--rivals", nargs="+", default=[WEIR, GRPC_ALONE, TRITON, MLSERVER])
    parser.add_argument("--seconds", type=float, default=3.0)
    given = harness.parse(parser)
    load.require_h2load()
    graph = given.models / MODEL / "1" / "model.onnx"
    if not graph.is_file():
        sys.exit(f"{graph} is missing: run `make demo` first")
    environment = harness.start()
    seconds = 0.5 if given.quick else given.seconds
    runs = harness.take_turns(
        [each for each in rivals(given.models, given.work) if each.name in given.rivals],
        given.rounds,
        lambda rival, server: measure(rival, server, graph, seconds),
    )
    if given.append:
        runs = harness.appended(harness.earlier(given.json), runs)
    console.print(harness.table(runs, COLUMNS))
    harness.print_targets(runs, TARGETS)
    harness.write(given.json, environment, runs)
    if given.picture:
        charts.bars(
            given.picture,
            runs,
            rivals=[WEIR, TRITON, MLSERVER],
            cases=[JSON, BINARY],
            figures={"calls_per_s": "requests a second", "cpu_us": "CPU a request, µs"},
        )


def rivals(models: Path, work: Path) -> list[Rival]:
    """The servers, in the order of a round."""
    start = partial(servers.serving, models, [MODEL], "--threads", "1", "--instances", "1")
    return [
        Rival(WEIR, partial(start, "--http-port", "0")),
        Rival(GRPC_ALONE, start),
        Rival(TRITON, partial(triton.serving, work, models, [MODEL], max_rows=_MAX_ROWS)),
        Rival(MLSERVER, partial(mlserver.serving, work, models, MODEL, max_rows=_MAX_ROWS)),
    ]


def measure(
    rival: Rival, server: Server, graph: Path, seconds: float
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The cases of one server process."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), np.uint8)
    if server.http:
        _check_answer(server, graph, picture)
    with tempfile.TemporaryDirectory() as folder:
        for case in _cases(rival):
            form = _load(case, picture, Path(folder))
            load.send(server, form, 2000)  # warm-up
            outcome = load.measure(server, form, trial_calls=1600, seconds=seconds)
            yield case, asdict(outcome)


def _cases(rival: Rival) -> list[str]:
    match rival.name:
        case "weir":
            return [JSON, BINARY, GRPC]
        case "weir-grpc":
            return [GRPC]
        case "mlserver":
            return [JSON]
    return [JSON, BINARY]


def _load(case: str, picture: NDArray[np.uint8], folder: Path) -> Load:
    file = folder / "body"
    if case == GRPC:
        file.write_bytes(load.infer_body(MODEL, image=picture))
        return Load(MODEL_INFER, file, *_GRPC_SHAPE)
    if case == JSON:
        file.write_bytes(json.dumps(_request(picture)).encode())
        headers: tuple[str, ...] = ("content-type: application/json",)
    else:
        request = _request(picture)
        del request["inputs"][0]["data"]
        request["inputs"][0]["parameters"] = {"binary_data_size": picture.nbytes}
        request["parameters"] = {"binary_data_output": True}
        text = json.dumps(request).encode()
        file.write_bytes(text + picture.tobytes())
        headers = (
            "content-type: application/octet-stream",
            f"inference-header-content-length: {len(text)}",
        )
    return Load(_PATH, file, CONNECTIONS, 1, headers=headers, is_http1=True)


def _request(picture: NDArray[np.uint8]) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": list(picture.shape),
                "data": picture.ravel().tolist(),
            }
        ]
    }


def _check_answer(server: Server, graph: Path, picture: NDArray[np.uint8]) -> None:
    """Compare an answer over HTTP with raw ONNX Runtime; exit if it differs."""
    session = raw_session(graph, threads=1)
    names = [each.name for each in session.get_outputs()]
    expected = dict(zip(names, session.run(names, {"image": picture}), strict=True))
    request = urllib.request.Request(
        f"http://{server.http}{_PATH}",
        json.dumps(_request(picture)).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        outputs = json.loads(response.read())["outputs"]
    for output in outputs:
        got = np.array(output["data"], np.float32).reshape(output["shape"])
        if not are_close(got, expected[output["name"]]):
            sys.exit(f"{server.http}: {output['name']}: expected {expected}, got {got}")


if __name__ == "__main__":
    main()
