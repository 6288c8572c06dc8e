"""A server, gateways of it, and callers beside a fault: every answer is checked, none may fail."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

import weir
from tests.helpers import onnx_models
from tests.helpers.gateway import gateway_process
from tests.helpers.load import Load
from tests.integration.conftest import SETTINGS
from tests.integration.harness import ANSWER_S, FOR_EVER, Server
from tests.integration.raw_http import post

MEGABYTE = 1 << 20
MAX_BODY_BYTES = 8 * MEGABYTE
INFER = "/v2/models/affine/infer"
CLOSE = "Connection: close"


def infer_body(name: str, datatype: str, values: list[list[float]]) -> bytes:
    """The JSON of an inference request."""
    shape = [len(values), len(values[0])]
    tensor = {"name": name, "datatype": datatype, "shape": shape, "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


AFFINE = infer_body("x", "FP32", [[0, 1, 2, 3]])
BURN = infer_body("iterations", "INT64", [[FOR_EVER]])


@dataclass
class Gateway:
    """A gateway process.

    Attributes:
        address: HOST:PORT.
        log: the file of its standard error.
    """

    address: str
    process: Popen[str]
    log: Path

    def memory_bytes(self) -> int:
        """The largest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return 1024 * int(line.split()[1])

    def cpu_s(self) -> float:
        """Seconds of a core that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / 100

    def descriptors(self) -> int:
        """The number of open descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def write_world(root: Path) -> Path:
    """Write a repository, and the settings of its server."""
    for name in ("affine", "patient", "patient_full"):
        onnx_models.write_plain(root, name, onnx_models.affine())
    onnx_models.write_plain(root, "echo", onnx_models.echo(TensorProto.FLOAT, ("batch", "width")))
    onnx_models.write_plain(root, "words", onnx_models.echo(TensorProto.STRING, ("batch", 1)))
    onnx_models.write_plain(root, "burner", onnx_models.burner())
    (root / "weir.toml").write_text(SETTINGS)
    return root


@contextmanager
def running_gateway(
    target: str,
    folder: Path,
    *options: str,
    exit_code: int | None = 0,
    limits: Mapping[str, float] | None = None,
) -> Iterator[Gateway]:
    """A gateway whose log has no traceback, no error and nothing per request at its end."""
    log = folder / "gateway.log"
    flags = ("--max-body-bytes", str(MAX_BODY_BYTES), *options)
    with gateway_process(
        target, *flags, exit_code=exit_code, log=log, limits=limits or {}
    ) as found:
        yield Gateway(*found, log)
    lines = log.read_text().splitlines()
    assert len(lines) < 10, lines
    assert all(
        " INFO    weir." in line or " WARNING weir.gateway.serve:" in line for line in lines
    ), lines


@contextmanager
def grpc_caller(target: str) -> Iterator[Load]:
    """A gRPC caller without a pause, none of whose calls may fail."""
    load = Load()
    x = np.array([[0, 1, 2, 3]], np.float32)

    def call() -> None:
        np.testing.assert_array_equal(client.infer("affine", {"x": x})["y"], 2 * x + 1)
        load.is_over.wait(0.002)

    with weir.Client(target) as client, load.running([lambda: load.repeat(call)]):
        load.wait_for(3)
        yield load
        load.wait_for(3)
    load.require_no_failure()


@contextmanager
def http_caller(address: str) -> Iterator[Load]:
    """An HTTP caller on one connection, none of whose requests may fail."""
    load = Load()

    def call() -> None:
        try:
            connection.request("POST", INFER, AFFINE)
            response = connection.getresponse()
            content = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(repr(error)) from error
        assert response.status == 200, content
        assert content["outputs"][0]["data"] == [1, 3, 5, 7]
        load.is_over.wait(0.002)

    connection = http.client.HTTPConnection(address, timeout=ANSWER_S)
    with load.running([lambda: load.repeat(call)]):
        load.wait_for(3)
        yield load
        load.wait_for(3)
    connection.close()
    load.require_no_failure()


@contextmanager
def callers(server: Server, gateway: Gateway) -> Iterator[None]:
    """Both callers."""
    with grpc_caller(server.target), http_caller(gateway.address):
        yield


def binary_body(model: str, values: NDArray[Any]) -> bytes:
    """An inference request with a binary tensor, answered with one."""
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": list(values.shape),
        "parameters": {"binary_data_size": values.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    return post(f"/v2/models/{model}/infer", head + values.tobytes(), length)
