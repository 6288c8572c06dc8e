"""Build the image `serve`, start it with docker-compose.yml, and check it from outside and inside.

The image `fetch` is built too, and copies the models.

    python -m deploy.image.prove MODELS --model NAME              # with Docker, or else Podman
    python -m deploy.image.prove MODELS --model NAME --stand-in   # on Debian, without Docker Hub

Needs `docker` with its compose plugin, or, as root, `podman`, `runc`, `catatonit` and
podman-compose from PyPI; with --stand-in also `debootstrap`. Three images remain for the next run:
weir-proof:serve, weir-proof:fetch and weir-proof:base.
"""

import argparse
import json
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.image.engine import BASE, FETCH_IMAGE, IMAGE, Engine, do, make_base
from weir import Client

_READY_WITHIN_S = 60.0
_GRACE_S = 25.0


def expect(what: str, wanted: object, got: object) -> None:
    """Print that a value is as expected, or exit."""
    if wanted != got:
        sys.exit(f"{what}: expected {wanted}, got {got}")
    print(f"ok: {what}: {got}")


def call(port: int, model: str) -> None:
    """Send requests for a second through the published port."""
    program = [sys.executable, "-m", "weir"]
    where = ["--target", f"127.0.0.1:{port}"]
    with Client(where[1]) as client:
        client.wait_ready(timeout_s=_READY_WITHIN_S)
    do(*program, "bench", model, *where, "--concurrency", "4", "--duration", "1s")
    print(f"ok: {model} answers")


def prove_contained(engine: Engine, container: str) -> dict[str, int]:
    """Check the container's permissions; the sizes of its packages."""
    program = Path(__file__).with_name("inside.py").read_text("utf-8")
    report: dict[str, Any] = json.loads(
        engine("exec", "-i", container, "python", "-", text=program)
    )
    # Podman always mounts these two in memory.
    writes = set(report["writes"]) - {"/var/tmp", "/run"}
    expect("its user", 10001, report["user"])
    expect("its capabilities", 0, report["capabilities"])
    expect("it may gain privileges", False, report["may gain privileges"])
    expect("where it may write", {"/tmp"}, writes)
    expect("it runs programs from /tmp", False, report["runs programs from /tmp"])
    expect("packages that only training needs", [], report["packages"])
    expect("programs that build", [], report["programs"])
    sizes: dict[str, int] = report["sizes"]
    return sizes


def prove_healthy(engine: Engine, container: str) -> None:
    """Run the image's health check as the engine does."""
    found = engine("image", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", IMAGE)
    command = json.loads(found)[1:]
    expect(" ".join(command), "SERVING", engine("exec", container, *command).strip())


def prove_http(port: int, model: str) -> None:
    """Ask for the model and its network through the published port."""
    for path in (f"v2/models/{model}/ready", f"page/models/{model}/network", "docs"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as answer:
            expect(f"HTTP: /{path}", 200, answer.status)


def prove_scraped(port: int) -> None:
    """Read the metrics through the published port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("weir_requests_total") and '"OK"' in line]
    expect("requests are counted", True, any(float(line.split()[-1]) > 0 for line in counted))


def fill(engine: Engine, container: str) -> None:
    """Fill /tmp."""
    engine("exec", container, "sh", "-c", "! cat /dev/zero > /tmp/full 2> /dev/null")
    free = engine("exec", container, "sh", "-c", "df --output=avail /tmp | tail -n 1")
    expect("free in /tmp", "0", free.strip())


def prove_stopped(engine: Engine, container: str, stop: Callable[[], object]) -> None:
    """Check that the container stops within its grace period."""
    started_s = time.monotonic()
    stop()
    expect("stopped within its grace", True, time.monotonic() - started_s < _GRACE_S)
    state = json.loads(engine("container", "inspect", container))[0]["State"]
    expect("exit code", 0, state["ExitCode"])


def prove_bare(engine: Engine, models: Path, model: str, port: int) -> None:
    """Check the image without HOME and without any writable folder, not even /tmp."""
    command = ["run", "--detach", "--name", "weir-proof-bare", "--read-only", "--cap-drop", "ALL"]
    if engine.name == "podman":
        command += ["--read-only-tmpfs=false"]
    command += ["--publish", f"127.0.0.1:{port}:8001", "--volume", f"{models}:/models:ro"]
    command += ["--env", "WEIR_INSECURE=true"]
    command += ["--entrypoint", "env", IMAGE, "--unset", "HOME", "weir", "serve", "/models"]
    engine(*command)
    try:
        call(port, model)
        prove_stopped(
            engine, "weir-proof-bare", lambda: engine("stop", "--time", "40", "weir-proof-bare")
        )
    finally:
        engine("rm", "--force", "weir-proof-bare")


def print_sizes(engine: Engine, base: str, sizes: dict[str, int]) -> None:
    """Print the sizes of the image, its base and its largest packages in MB."""
    whole, below = (
        json.loads(engine("image", "inspect", name))[0]["Size"] for name in (IMAGE, base)
    )
    print(f"image {whole / 1e6:.0f} MB, of it the base {below / 1e6:.0f} MB")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:12]:
        print(f"{size / 1e6:8.1f} MB  {name}")
    print(f"{sum(sizes.values()) / 1e6:8.1f} MB  all of Python's packages")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _container(engine: Engine) -> str:
    label = "label=com.docker.compose.project=weir-proof"
    return engine("ps", "--all", "--quiet", "--filter", label).strip()


def prove_fetch(engine: Engine, models: Path, base: str) -> None:
    """Copy the models with the image `fetch`, contained as a pod's init container is."""
    of_base = ["--build-arg", f"PYTHON_IMAGE={base}"] if base else []
    engine("build", "--target", "fetch", *of_base, "--tag", FETCH_IMAGE, ".")
    contained = ["--rm", "--network=none", "--read-only", "--cap-drop=ALL"]
    contained += ["--security-opt=no-new-privileges", "--tmpfs=/tmp:size=64m,mode=1777"]
    mounts = ["--tmpfs=/models:mode=1777", f"--volume={models}:/source:ro"]
    line = engine(
        "run", *contained, *mounts, FETCH_IMAGE, "/source", "--to", "/models/fetched"
    )  # fmt: skip
    files = sum(path.is_file() for path in models.rglob("*"))
    expect("it copies the models", True, f"({files} files, " in line)


def prove(models: Path, model: str, base: str, folder: Path) -> None:
    """Build the image, start it, check it, and stop it."""
    grpc, metrics, http, bare = _free_ports(4)
    settings = {"WEIR_PORT": str(grpc), "WEIR_METRICS_PORT": str(metrics)}
    settings["WEIR_HTTP_PORT"] = str(http)
    settings |= {"WEIR_MODELS": str(models), "COMPOSE_PROFILES": "cpu"}
    engine = Engine(folder, {**settings, **({"PYTHON_IMAGE": base} if base else {})})
    if base == BASE:
        make_base(engine, folder)
    engine.compose("build", "server")
    try:
        engine.compose("up", "--detach", "--no-build", "server")
        container = _container(engine)
        call(grpc, model)
        prove_healthy(engine, container)
        prove_scraped(metrics)
        prove_http(http, model)
        sizes = prove_contained(engine, container)
        fill(engine, container)
        call(grpc, model)
        prove_healthy(engine, container)
        prove_stopped(engine, container, lambda: engine.compose("stop", "server"))
    finally:
        engine.compose("down", "--volumes")
    prove_bare(engine, models, model, bare)
    prove_fetch(engine, models, base)
    if base:
        print_sizes(engine, base, sizes)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", type=Path, help="a model repository that every user may read")
    parser.add_argument("--model", required=True, help="the model to call")
    parser.add_argument(
        "--base", default="", help="base image in place of the Dockerfile's PYTHON_IMAGE"
    )
    parser.add_argument(
        "--stand-in",
        action="store_const",
        dest="base",
        const=BASE,
        help="build a base image from Debian's packages",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prove(arguments.models.resolve(), arguments.model, arguments.base, Path(folder))


if __name__ == "__main__":
    main()
