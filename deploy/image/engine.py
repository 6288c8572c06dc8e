"""Docker or Podman, and what stands in for the base image where Docker Hub is not reached."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/weir-proof:serve"
BASE = "localhost/weir-proof:base"
_DEBIAN = "http://deb.debian.org/debian"
_PACKAGES = "ca-certificates,python-is-python3,python3,python3-pip,python3-venv"


class Engine:
    """Docker or Podman: what builds, runs and composes.

    Args:
        folder: for its settings.
        settings: what docker-compose.yml reads from the environment.
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
                "BUILDAH_FORMAT": "docker",  # the other one knows no HEALTHCHECK
                "CONTAINERS_CONF": str(_podman_settings(folder)),
            }
            # It refuses options that it does not know.
            stack += "networks: {front: {driver_opts: !reset null}}\n"
        override = folder / "override.yml"
        override.write_text(stack)
        self._compose += ["-p", "weir-proof", "-f", "docker-compose.yml", "-f", str(override)]

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        """What a command of the engine prints."""
        return self._run([self.name, *arguments], text)

    def compose(self, *arguments: str) -> None:
        """Do something with the stack, which is a project of its own here."""
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
    """Containers get no more than this process may have, and Debian 12's crun knows no mixed cgroups."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    path = folder / "containers.conf"
    path.write_text(
        '[engine]\nruntime = "runc"\nevents_logger = "file"\n'
        f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]\n'
    )
    return path


def make_base(engine: Engine, folder: Path) -> None:
    """Debian with its Python, in the place of Docker Hub's, unless it was made before."""
    if _answers(engine.name, "image", "inspect", BASE):
        return
    tree = folder / "base"
    do("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(tree), _DEBIAN)
    # The base of Docker Hub lets pip install; and what this machine's pip trusts, that one's has to.
    (tree / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    for name in ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
        if Path("/", name).exists():
            shutil.copy(Path("/", name), tree / name)
    packed = folder / "base.tar"
    do("tar", "--create", "--file", str(packed), "--directory", str(tree), ".")
    engine("import", str(packed), BASE)
    shutil.rmtree(tree)


def do(*command: str) -> None:
    """A command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
