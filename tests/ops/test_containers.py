"""The image and the stack: linted, held against the published schema, built, started and looked at."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import onnx_models

pytestmark = pytest.mark.ops

yaml = pytest.importorskip("yaml", reason="make test-ops brings it")

ROOT = Path(__file__).parents[2]
STACK = ROOT / "docker-compose.yml"
PROGRAMS = Path(sys.executable).parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, cwd=ROOT
    )


def against_schema(stack: Path) -> subprocess.CompletedProcess[str]:
    return run(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", stack)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load(STACK.read_text("utf-8"))["services"]
    return told


def test_dockerfile_is_as_hadolint_wants_it() -> None:
    linted = run(PROGRAMS / "hadolint", "Dockerfile")

    assert linted.returncode == 0, linted.stdout


def test_stack_is_as_the_compose_specification_wants_it() -> None:
    held = against_schema(STACK)

    assert held.returncode == 0, held.stdout


@pytest.mark.parametrize("wrong", ["read_onyl: true", "mem_limit: [1g]", "ports: 8001"])
def test_a_slip_in_the_stack_is_found(wrong: str, tmp_path: Path) -> None:
    slipped = tmp_path / "docker-compose.yml"
    slipped.write_text(f"services: {{server: {{image: weir, {wrong}}}}}")

    assert against_schema(slipped).returncode != 0


def test_every_service_is_contained(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] and service["mem_limit"], name
        assert service["logging"]["options"]["max-size"], name
        assert all({"noexec", "nosuid"} <= set(each.split(",")) for each in service["tmpfs"]), name
        assert not service.get("privileged"), name


def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    ports = {name: service.get("ports", []) for name, service in services.items()}

    assert all(port.startswith("127.0.0.1:") for each in ports.values() for port in each)
    assert {name for name, each in ports.items() if each} == {"server", "server-gpu", "grafana"}


def test_images_of_others_are_named_by_version_and_digest(services: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        assert "@sha256:" in services[name]["image"], name
        assert ":latest" not in services[name]["image"], name


def test_dockerfile_and_stack_name_the_same_base(services: dict[str, Any]) -> None:
    (base,) = [
        line.removeprefix("ARG PYTHON_IMAGE=")
        for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines()
        if line.startswith("ARG PYTHON_IMAGE=")
    ]

    assert services["server"]["build"]["args"]["PYTHON_IMAGE"] == f"${{PYTHON_IMAGE:-{base}}}"


def test_a_plain_up_takes_the_cpu(services: dict[str, Any]) -> None:
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env").read_text("utf-8").splitlines()
    assert services["server"]["profiles"] == ["cpu"]
    assert services["server-gpu"]["profiles"] == ["gpu"]


def may_start_containers() -> bool:
    """Whether this process, or sudo, is given what a container is made of: some build machines are not."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    spaces = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork")
    return run(*sudo, "unshare", *spaces, "mount", "-t", "tmpfs", "none", "/mnt").returncode == 0


def test_image_serves_as_the_stack_says(tmp_path: Path) -> None:
    if not may_start_containers():
        pytest.skip("nobody may make namespaces here, which containers are made of")
    models = tmp_path / "models"
    onnx_models.write_plain(models, "affine", onnx_models.affine())
    sudo = [] if os.geteuid() == 0 else ["sudo"]

    proved = run(
        *sudo, sys.executable, "-m", "deploy.image.prove", models, "--model", "affine", "--stand-in"
    )

    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert proved.stdout.count("ok: exit code: 0") == 2, (
        "as the stack says, and with nothing at all"
    )
