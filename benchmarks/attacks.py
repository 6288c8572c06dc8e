"""What other clients see while one client attacks the gRPC port.

    .venv/bin/python benchmarks/attacks.py [--attacks bomb resets ...] [--seconds 10] \
        [--before TREE] [--transport completion-queue] [--json FILE]

A probe calls ServerReady 50 times a second on a connection of its own, with a deadline of 5 s:
first `--seconds` without an attack, then as long with it. Latency counts from when a call was due.
The attack runs in a process of its own, which has started before and goes on until the probe ends.
Every attack has a new server. `--before` is another checkout, whose server is measured in turn.

An attack is a function of the server's address and the time of its end, in `ATTACKS`.
"""

import argparse
import io
import json
import multiprocessing
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
from PIL import Image
from rich.table import Table

from benchmarks.lib import servers
from benchmarks.lib.harness import console
from benchmarks.lib.servers import Server
from benchmarks.lib.untrained import publish_untrained
from tests.helpers.http2_client import (
    CANCEL,
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    RST_STREAM,
    ConnectionEnded,
    Frame,
    Http2Client,
    grpc_headers,
    indexed,
    literals,
    reference,
)
from tests.helpers.onnx_models import affine, write_plain
from weir.bench.tally import percentile
from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2

READY = "/inference.GRPCInferenceService/ServerReady"
INFER = "/inference.GRPCInferenceService/ModelInfer"
CALLS_PER_S = 50
DEADLINE_S = 5.0
SILENT = 5000

Attack = Callable[[str, float], None]


def bomb(target: str, end_s: float) -> None:
    """300 header blocks of 12 kB, each of 47 MB by a table, on one connection without an ACK."""
    head, entry = literals(grpc_headers(READY)), indexed("x-a", "v" * 3900)
    with Http2Client(target, acknowledges=False) as client:
        for _ in range(300):
            client.send_headers(client.new_stream(), head + entry + reference(0) * 12_000)
            entry = b""
        _read_until(client, end_s)


def many_fields(target: str, end_s: float) -> None:
    """One header block of 480,000 fields without a name: the dearest one that gRPC core takes."""
    with Http2Client(target, acknowledges=False) as client:
        client.send_headers(1, literals(grpc_headers(READY)) + indexed("x", ""), flags=0)
        for part in range(30):
            flags = END_HEADERS if part == 29 else 0
            client.send_frame(CONTINUATION, flags, 1, reference(0) * 16_000)
        _read_until(client, end_s)


def resets(target: str, end_s: float) -> None:
    """20,000 calls a second that are opened and reset at once."""
    block = literals(grpc_headers(INFER))
    with Http2Client(target) as client:
        client.socket.settimeout(DEADLINE_S)
        due_s = time.monotonic()
        while due_s < end_s:
            frames = b""
            for _ in range(200):
                stream = client.new_stream()
                frames += bytes(Frame(HEADERS, END_HEADERS, stream, block))
                frames += bytes(Frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
            client.send(frames)
            due_s += 0.01
            time.sleep(max(0.0, due_s - time.monotonic()))


def pings(target: str, end_s: float) -> None:
    """Floods of pings, each on a new connection."""
    while time.monotonic() < end_s:
        with Http2Client(target) as client:
            client.send(bytes(Frame(PING, 0, 0, bytes(8))) * 1000)
            client.wait_for_end()


def silent(target: str, end_s: float) -> None:
    """5,000 connections that send nothing."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host, port = target.split(":")
    with ExitStack() as stack:
        for _ in range(SILENT):
            stack.enter_context(socket.create_connection((host, int(port)), DEADLINE_S))
        time.sleep(max(0.0, end_s - time.monotonic()))


def unread(target: str, end_s: float) -> None:
    """2,000 calls whose answers are not read, and 2,000 whose message does not come."""
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(Http2Client(target, settings={INITIAL_WINDOW_SIZE: 0}))
            for _ in range(100):
                client.call(READY, b"")
                client.call(INFER)
        time.sleep(max(0.0, end_s - time.monotonic()))


def strings(target: str, end_s: float) -> None:
    """20 messages a second of 65,000 typed elements without a letter, 130 kB each."""
    message = pb.ModelInferRequest(model_name="affine")
    tensor = message.inputs.add(name="x", datatype="BYTES", shape=[65_000])
    tensor.contents.bytes_contents.extend([b""] * 65_000)
    _send(target, INFER, message.SerializeToString(), 20, end_s)


def inputs(target: str, end_s: float) -> None:
    """20 messages a second of 16,000 inputs without a name, 32 kB each."""
    message = pb.ModelInferRequest(model_name="affine")
    for _ in range(16_000):
        message.inputs.add()
    _send(target, INFER, message.SerializeToString(), 20, end_s)


def pictures(target: str, end_s: float) -> None:
    """Two requests a second of 32 pictures with 32 million pixels each, 1 MB in all."""
    file = io.BytesIO()
    Image.new("L", (8000, 4000)).save(file, "PNG")
    request = tasks_pb2.ClassifyRequest(model_name="lenet5")
    for _ in range(32):
        request.pictures.add(encoded=file.getvalue())
    _send(target, "/weir.v1.Tasks/Classify", request.SerializeToString(), 2, end_s)


def mute(target: str, end_s: float) -> None:
    """Calls without a message: 4,000 a second, up to 20,000, on 20 connections."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Http2Client(target)) for _ in range(20)]
        due_s = time.monotonic()
        for _ in range(1000):
            for client in clients:
                client.call(INFER)
            due_s += 0.005
            time.sleep(max(0.0, due_s - time.monotonic()))
        time.sleep(max(0.0, end_s - time.monotonic()))


def hang_up(target: str, end_s: float) -> None:
    """8,000 calls without a message, whose 20 connections close at once; every two seconds."""
    while time.monotonic() < end_s:
        with ExitStack() as stack:
            clients = [stack.enter_context(Http2Client(target)) for _ in range(20)]
            for _ in range(400):
                for client in clients:
                    client.call(INFER)
                time.sleep(0.002)
            time.sleep(0.5)
        time.sleep(0.5)


def other_protocols(target: str, end_s: float) -> None:
    """HTTP/1.1 and random bytes, each on a new connection."""
    host, port = target.split(":")
    while time.monotonic() < end_s:
        for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256))):
            with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
                connection.sendall(data)
                while connection.recv(4096):
                    pass


ATTACKS: Mapping[str, Attack] = {
    attack.__name__.replace("_", "-"): attack
    for attack in (
        bomb,
        many_fields,
        resets,
        pings,
        silent,
        unread,
        mute,
        hang_up,
        strings,
        inputs,
        pictures,
        other_protocols,
    )
}


def _send(target: str, method: str, message: bytes, per_s: float, end_s: float) -> None:
    """Send one message again and again, whatever becomes of it."""
    with grpc.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(method)
        due_s = time.monotonic()
        while due_s < end_s:
            call.future(message, timeout=DEADLINE_S)
            due_s += 1 / per_s
            time.sleep(max(0.0, due_s - time.monotonic()))


def _read_until(client: Http2Client, end_s: float) -> None:
    client.socket.settimeout(0.1)
    while time.monotonic() < end_s:
        with suppress(TimeoutError):
            client.next_frame()


def _run(name: str, target: str, seconds: float, ready: Event, begin: Event) -> None:
    """An attack; the server may end it, by closing its connection."""
    ready.set()
    begin.wait()
    end_s = time.monotonic() + seconds
    with suppress(ConnectionEnded, OSError):
        ATTACKS[name](target, end_s)


class Probe:
    """Calls at fixed times on a connection of its own."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._call: Any = self._channel.unary_unary(READY)
        self._call(b"", timeout=DEADLINE_S)

    def run(self, seconds: float) -> dict[str, float]:
        """Latencies in ms, and failed calls."""
        latencies_ms: list[float] = []
        failed = 0
        done = threading.Semaphore(0)
        start_s = time.monotonic()
        calls = int(seconds * CALLS_PER_S)

        def ended(due_s: float, future: Any) -> None:
            nonlocal failed
            latencies_ms.append(1000 * (time.monotonic() - due_s))
            failed += future.exception() is not None
            done.release()

        for number in range(calls):
            due_s = start_s + number / CALLS_PER_S
            time.sleep(max(0.0, due_s - time.monotonic()))
            future = self._call.future(b"", timeout=DEADLINE_S)
            future.add_done_callback(partial(ended, due_s))
        for _ in range(calls):
            done.acquire()
        return {
            "p50_ms": percentile(latencies_ms, 50),
            "p99_ms": percentile(latencies_ms, 99),
            "max_ms": max(latencies_ms),
            "failed": failed,
        }


def measure(name: str, server: Server, seconds: float) -> dict[str, float]:
    """The probe without and with an attack, and the server's memory in MB."""
    probe = Probe(server.target)
    calm = probe.run(seconds)
    before = server.status("VmRSS")
    context = multiprocessing.get_context("spawn")
    ready, begin = context.Event(), context.Event()
    attacker = context.Process(
        target=_run, args=(name, server.target, 2 * seconds, ready, begin), daemon=True
    )
    attacker.start()
    ready.wait()
    begin.set()
    attacked = probe.run(seconds)
    attacker.terminate()
    attacker.join()
    return {
        "calm_p99_ms": calm["p99_ms"],
        **attacked,
        "memory_mb": (server.status("VmHWM") - before) / 1024,
        "kept_mb": (server.status("VmRSS") - before) / 1024,
    }


def main() -> None:
    """Print a table: attacks and trees."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--transport", default="completion-queue")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    trees = {"now": None} | ({"before": arguments.before} if arguments.before else {})
    table = Table("attack", "tree", "calm p99 ms", "p99 ms", "max ms", "failed", "MB", "MB kept")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_plain(Path(folder), "affine", affine(), version=1)
        publish_untrained("lenet5", Path(folder))
        for name in arguments.attacks:
            for tree_name, tree in trees.items():
                with servers.serving(
                    Path(folder),
                    ["affine", "lenet5"],
                    "--transport",
                    arguments.transport,
                    tree=tree,
                ) as server:
                    row = measure(name, server, arguments.seconds)
                rows.append({"attack": name, "tree": tree_name, **row})
                table.add_row(
                    name, tree_name, f"{row['calm_p99_ms']:.1f}", f"{row['p99_ms']:.1f}",
                    f"{row['max_ms']:.0f}", f"{row['failed']:.0f}", f"{row['memory_mb']:.0f}",
                    f"{row['kept_mb']:.0f}",
                )  # fmt: skip
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
