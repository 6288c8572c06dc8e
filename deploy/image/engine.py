"""The container engine, Docker or Podman, and a base image that needs no Docker Hub."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/weir-proof:serve"
FETCH_IMAGE = "localhost/weir-proof:fetch"
BASE = "localhost/weir-proof:base"
_DEBIAN = "http://deb.debian.org/debian"
_PACKAGES = "ca-certificates,python-is-python3,python3,python3-pip,python3-venv"


class Engine:
    """Builds images and runs containers and the stack, with Docker or Podman.

    Args:
        folder: holds the engine's settings.
        settings: environment variables that docker-compose.yml reads.
    """

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.name = "docker" if _answers("docker", "info") else "podman"
        self._environment = {**os.environ, **settings}
        stack = f"services: {{server: {{image: {IMAGE}}}}}\n"
        if self.name == "docker":
            self._compose = ["docker", "compose"]
        else:
            self._compose = [str(Path(sys.executable).with_name("podman-compose"))]
            self._environment |= {
                "BUILDAH_FORMAT": "docker",  # the OCI format has no HEALTHCHECK
                "CONTAINERS_CONF": str(_podman_settings(folder)),
            }
            # Podman rejects unknown driver options.
            stack += "networks: {front: {driver_opts: !reset null}}\n"
        override = folder / "override.yml"
        override.write_text(stack)
        self._compose += ["-p", "weir-proof", "-f", "docker-compose.yml", "-f", str(override)]

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        """Run a command of the engine and return its output."""
        return self._run([self.name, *arguments], text)

    def compose(self, *arguments: str) -> None:
        """Run a command of compose, in a project separate from the deployed stack."""
        self._run([*self._compose, *arguments], None)

    def _run(self, command: list[str], text: str | None) -> str:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, cwd=ROOT,
            env=self._environment,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _podman_settings(folder: Path) -> Path:
    """Settings for Podman: this process's limits, and runc.

    crun of Debian 12 does not work with mixed cgroups.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    path = folder / "containers.conf"
    path.write_text(
        '[engine]\nruntime = "runc"\nevents_logger = "file"\n'
        f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]\n'
    )
    return path


def make_base(engine: Engine, folder: Path) -> None:
    """Build a base image from Debian's packages, unless it exists."""
    if _answers(engine.name, "image", "inspect", BASE):
        return
    tree = folder / "base"
    do("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(tree), _DEBIAN)
    # Like in Docker Hub's image, pip may install. The image trusts the same certificates as this
    # machine and uses the same package index.
    (tree / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    for name in ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
        if Path("/", name).exists():
            shutil.copy(Path("/", name), tree / name)
    packed = folder / "base.tar"
    do("tar", "--create", "--file", str(packed), "--directory", str(tree), ".")
    engine("import", str(packed), BASE)
    shutil.rmtree(tree)


def do(*command: str) -> None:
    """Run a command; exit if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
