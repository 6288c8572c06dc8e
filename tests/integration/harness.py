"""A real server as a process, and a raw client that can say what no stock client would.

The client encodes tensors with plain numpy, not with the server's codec: it is its oracle.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb

Array = NDArray[Any]
Labels = frozenset[tuple[str, str]]

SERVICE = "inference.GRPCInferenceService"
TASKS = "weir.v1.Tasks"
ANSWER_S = 30.0
"""Deadline of every call that is answered at once: long enough for a busy machine."""

DTYPE_NAMES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
}


class Server:
    """A server process that has said where it listens.

    Args:
        process: just started, its standard output piped.
        log: where its standard error goes.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            raise AssertionError(f"the server did not start:\n{self.log()}")
        fields = dict(part.split("=") for part in line.split() if "=" in part)
        self.target = fields["grpc"]
        self.metrics = fields["metrics"]
        # With `--http-port` only.
        self.http = fields.get("http", "")

    def log(self) -> str:
        """What the server wrote to standard error so far."""
        return self._log.read_text(errors="backslashreplace")

    def wait_for_log(self, text: str) -> None:
        """Return once the log holds a text; it is written a little after what it tells of."""
        end_s = time.monotonic() + ANSWER_S
        while text not in self.log():
            assert time.monotonic() < end_s, f"expected {text!r} in the log:\n{self.log()}"
            time.sleep(0.005)

    def memory_bytes(self) -> int:
        """The resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Seconds of a core that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """The number of open descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def metrics_text(self) -> str:
        """`/metrics` as it is."""
        connection = HTTPConnection(self.metrics, timeout=ANSWER_S)
        with closing(connection):
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            assert response.status == 200
            return response.read().decode()

    def scrape(self) -> dict[tuple[str, Labels], float]:
        """Every sample of `/metrics`, by name and labels."""
        return samples(self.metrics_text())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        # Read line by line: to parse everything takes longer than most tests.
        lines = [line for line in self.metrics_text().splitlines() if line.startswith(name)]
        wanted = set(labels.items())
        return sum(
            value
            for (sample, carried), value in samples("\n".join(lines) + "\n").items()
            if sample == name and wanted <= carried
        )

    def counts(self, model: str) -> dict[str, float]:
        """What was counted of a model: answers by status, rows, and batches."""
        names = ("weir_requests_total", "weir_rows_total", "weir_batches_total")
        lines = [line for line in self.metrics_text().splitlines() if line.startswith(names)]
        return {
            dict(carried).get("status", name.split("_")[1]): value
            for (name, carried), value in samples("\n".join(lines) + "\n").items()
            if ("model", model) in carried
        }

    def wait_for_counts(self, model: str, before: dict[str, float], **grown: float) -> None:
        """Return once the counts have grown by exactly this; answers precede their counts."""
        end_s = time.monotonic() + ANSWER_S
        while True:
            now = self.counts(model)
            change = {key: now[key] - before.get(key, 0) for key in now}
            actual = {key: value for key, value in change.items() if value}
            if actual == grown:
                return
            assert time.monotonic() < end_s, f"{model}: expected {grown}, got {actual}"
            time.sleep(0.005)

    def wait_for_metric(self, value: float, name: str, **labels: str) -> None:
        """Return once the metric has this value; the server offers no other word of its queue."""
        end_s = time.monotonic() + ANSWER_S
        while (actual := self.metric(name, **labels)) != value:
            assert time.monotonic() < end_s, f"{name}{labels}: expected {value}, got {actual}"
            time.sleep(0.005)

    def settle(self) -> None:
        """Return once every batch that ran is counted; answers precede their counts."""
        self.wait_for_metric(0, "weir_running_requests")

    def ended(self) -> int:
        """Wait for the process; its exit code."""
        return self.process.wait(ANSWER_S)

    def kill(self) -> None:
        """Make sure that nothing is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def samples(text: str) -> dict[tuple[str, Labels], float]:
    """The samples of a metrics page, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def command(models: Path, *flags: str) -> list[str]:
    """How a server is started, on free ports unless the flags say otherwise."""
    ports = [
        part for flag in ("--port", "--metrics-port") if flag not in flags for part in (flag, "0")
    ]
    return [sys.executable, "-m", "weir.server", str(models), "--provider", "cpu", *ports, *flags]


@contextmanager
def running(
    models: Path,
    log: Path,
    *flags: str,
    ready: bool = True,
    launch: Callable[[list[str]], list[str]] = list,
) -> Iterator[Server]:
    """A server process, killed at the end if it has not ended by itself.

    Args:
        models: the repository.
        log: a new file for its standard error.
        flags: of the command line.
        ready: whether to wait until it says SERVING.
        launch: makes the command that is run of the server's own.
    """
    start = launch(command(models, *flags))
    # A command that a test ran in this process has set it, and the server would keep it.
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            start, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        )
    server = None
    try:
        server = Server(process, log)
        if ready:
            with Client(server.target) as client:
                client.wait_for_health("SERVING")
            # The lines about the models are written a little later than they are served.
            if "--log-level" not in flags:
                server.wait_for_log("server ready")
        yield server
    finally:
        if server is None:
            process.kill()
            process.wait()
        else:
            server.kill()


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as it stands in a request."""

    name: str
    datatype: str
    shape: Sequence[int]
    raw: bytes


def tensor(name: str, array: Array, datatype: str | None = None) -> Tensor:
    """An array as raw contents; an object array holds `bytes`."""
    if array.dtype == object:
        raw = b"".join(len(item).to_bytes(4, "little") + item for item in array.ravel())
    else:
        raw = array.tobytes()
    return Tensor(name, datatype or DTYPE_NAMES[array.dtype.name], array.shape, raw)


def request(model: str, *tensors: Tensor, **fields: Any) -> pb.ModelInferRequest:
    """A request with raw contents; `fields` are those of the message."""
    message = pb.ModelInferRequest(model_name=model, **fields)
    for item in tensors:
        message.inputs.add(name=item.name, datatype=item.datatype, shape=item.shape)
        message.raw_input_contents.append(item.raw)
    return message


X = np.array([[0, 1, 2, 3]], np.float32)
GOOD = tensor("x", X)
"""An input of `affine`."""
FOR_EVER = 10**12
"""So many iterations of the burner outlast any test."""


def burn(count: int) -> pb.ModelInferRequest:
    """A request that takes the burner so many iterations."""
    return request("burner", tensor("iterations", np.array([[count]])))


def arrays(response: pb.ModelInferResponse) -> dict[str, Array]:
    """The tensors of an answer; BYTES as objects, BF16 as its 16 bits."""
    dtypes = {name: np.dtype(dtype) for dtype, name in DTYPE_NAMES.items()}
    dtypes["BF16"] = np.dtype(np.uint16)
    found = {}
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    for output, raw in pairs:
        if output.datatype == "BYTES":
            flat = np.array(_strings(raw), object)
        else:
            flat = np.frombuffer(raw, dtypes[output.datatype])
        found[output.name] = flat.reshape(tuple(output.shape))
    return found


def _strings(raw: bytes) -> list[bytes]:
    items = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        items.append(raw[4:end])
        raw = raw[end:]
    return items


class Client:
    """A channel to a server; each method is one call, in the protocol's words."""

    def __init__(self, target: str, **options: int) -> None:
        self.target = target
        limits = {"max_receive_message_length": -1, "max_send_message_length": -1, **options}
        self.channel = grpc.insecure_channel(
            target, options=[(f"grpc.{name}", value) for name, value in limits.items()]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.channel.close()

    def unary(self, method: str, service: str = SERVICE) -> Any:
        """A method of bytes in and bytes out: nothing is checked on this side."""
        return self.channel.unary_unary(f"/{service}/{method}")

    def send(
        self, message: pb.ModelInferRequest | bytes, timeout: float | None = ANSWER_S, **extra: Any
    ) -> Any:
        """Start `ModelInfer`; a future, at once a call, of `ModelInferResponse`."""
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        method: Any = self.channel.unary_unary(
            f"/{SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )
        return method.future(payload, timeout=timeout, **extra)

    def classify(
        self, model: str, *files: bytes, timeout: float | None = ANSWER_S, **fields: Any
    ) -> Any:
        """Start `Classify` of encoded pictures; a future, at once a call, of `ClassifyResponse`."""
        pictures = [tasks_pb.Picture(encoded=file) for file in files]
        message = tasks_pb.ClassifyRequest(model_name=model, pictures=pictures, **fields)
        method: Any = self.channel.unary_unary(
            f"/{TASKS}/Classify", response_deserializer=tasks_pb.ClassifyResponse.FromString
        )
        return method.future(message.SerializeToString(), timeout=timeout)

    def infer(self, model: str, *tensors: Tensor, **fields: Any) -> dict[str, Array]:
        """The outputs of one good request."""
        return arrays(self.send(request(model, *tensors, **fields)).result())

    def stream(
        self, messages: Iterator[bytes], timeout: float | None = ANSWER_S, **extra: Any
    ) -> Any:
        """Open `ModelStreamInfer`; a call, iterated for its answers."""
        method: Any = self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        return method(messages, timeout=timeout, **extra)

    def ask(self, method: str, message: Any, response_type: Any) -> Any:
        """Any other call of the inference service."""
        payload = self.unary(method)(message.SerializeToString(), timeout=ANSWER_S)
        return response_type.FromString(payload)

    def watch(self, service: str = "") -> Any:
        """Open a health Watch; a call, iterated for the names of statuses."""
        method = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=_health_name,
        )
        return method(health_pb2.HealthCheckRequest(service=service), timeout=2 * ANSWER_S)

    def health(self, service: str = "") -> str:
        """One health Check."""
        method = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=_health_name,
        )
        return str(method(health_pb2.HealthCheckRequest(service=service), timeout=ANSWER_S))

    def wait_for_health(self, status: str, service: str = "") -> list[str]:
        """Watch until this status comes; everything seen, in order."""
        seen = []
        call = self.watch(service)
        for name in call:
            seen.append(str(name))
            if name == status:
                break
        call.cancel()
        assert seen[-1:] == [status], f"health ended with {seen}"
        return seen


def _health_name(payload: bytes) -> str:
    response = health_pb2.HealthCheckResponse.FromString(payload)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def drain(server: Server) -> None:
    """Stop a server while a request runs, which outlasts its grace: it refuses all other calls."""
    with Client(server.target) as client:
        run = client.send(burn(FOR_EVER), timeout=2 * ANSWER_S)
        server.wait_for_metric(1, "weir_running_requests", model="burner")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
        assert run.exception(ANSWER_S) is not None


def expect_right_answer(client: Client) -> None:
    """Send a request to `affine`, and check its answer."""
    np.testing.assert_array_equal(client.infer("affine", GOOD)["y"], 2 * X + 1)


def failure(call: Any) -> grpc.Call:
    """The error a call ends with; an answer instead is a failed test, and so is none in time."""
    error = call.exception(2 * ANSWER_S)
    assert isinstance(error, grpc.Call), "expected an error, got an answer"
    return error
