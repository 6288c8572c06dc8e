"""Requirements of the images `serve` and `fetch`, with hashes.

`python -m tools.image_requirements` writes them.

pip resolves them from pyproject.toml and constraints.txt for both platforms of the image, by the
metadata of its registry: no package is downloaded. pip installs only files with these hashes.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "image"
REQUIREMENTS = FOLDER / "requirements.txt"
CUDA_REQUIREMENTS = FOLDER / "cuda-requirements.txt"
FETCH_REQUIREMENTS = FOLDER / "fetch-requirements.txt"
BUILD_REQUIREMENTS = FOLDER / "build-requirements.txt"
CONSTRAINTS = ROOT / "constraints.txt"
CUDA_CONSTRAINTS = FOLDER / "cuda-constraints.txt"
MACHINES = ("x86_64", "aarch64")
# The image's Python. pip evaluates markers for its own.
PYTHON = (3, 11)
# Of Debian 12's glibc, 2.36, downwards.
_TAGS = (*(f"manylinux_2_{minor}" for minor in range(36, 16, -1)), "manylinux2014")

_HEAD = "# Written by `make image-requirements`: {what}, with the hashes of {machines}.\n"


SERVER_EXTRAS = ("server", "gateway")
"""Extras of the package in the image `serve`."""


@dataclass(frozen=True)
class Wheel:
    """A file of the registry."""

    name: str
    version: str
    sha256: str


def main() -> None:
    """Write the four files."""
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"expected Python {PYTHON[0]}.{PYTHON[1]}, the image's, got {sys.version}")
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for path, extras in ((REQUIREMENTS, SERVER_EXTRAS), (FETCH_REQUIREMENTS, ("fetch",))):
        what = f"what weir[{','.join(extras)}] needs"
        _write(path, what, needs(whole, extras), MACHINES)
    _write(BUILD_REQUIREMENTS, "what builds the wheel", ["hatchling"], MACHINES)
    _write(
        CUDA_REQUIREMENTS,
        "what CUDA adds to requirements.txt",
        ["onnxruntime-gpu[cuda,cudnn]"],
        MACHINES[:1],
        without=pinned(REQUIREMENTS.read_text("utf-8")),
    )


def needs(project: Mapping[str, Any], extras: Iterable[str]) -> list[str]:
    """What the package requires with some extras; an extra may name others of the package."""
    found = list(project.get("dependencies", ()))
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == project["name"]:
                found += needs({**project, "dependencies": ()}, sorted(requirement.extras))
            else:
                found.append(line)
    return found


def _write(
    path: Path,
    what: str,
    requirements: Iterable[str],
    machines: tuple[str, ...],
    *,
    without: Iterable[str] = (),
) -> None:
    wheels = {machine: resolve(requirements, machine) for machine in machines}
    lines = "".join(as_lines(wheels, set(without)))
    path.write_text(_HEAD.format(what=what, machines=" and ".join(machines)) + lines, "utf-8")


def resolve(requirements: Iterable[str], machine: str) -> list[Wheel]:
    """The wheels that pip would install on a machine."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        for constraints in (CONSTRAINTS, CUDA_CONSTRAINTS):
            pip += ["--constraint", str(constraints)]
        pip += ["--target", folder, "--only-binary", ":all:", "--implementation", "cp"]
        pip += ["--python-version", f"{PYTHON[0]}.{PYTHON[1]}"]
        pip += [f"--platform={tag}_{machine}" for tag in _TAGS]
        report = Path(folder) / "report.json"
        # Only the registry: a local mirror may have other builds, with other hashes.
        registry = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
        subprocess.run(
            [*pip, "--report", report, *for_machine(requirements, machine)],
            check=True,
            env={**os.environ, **registry},
        )
        return [_wheel(each) for each in json.loads(report.read_text("utf-8"))["install"]]


def for_machine(requirements: Iterable[str], machine: str) -> Iterator[str]:
    """The requirements whose markers hold on Linux on a machine, without the markers."""
    environment = {"sys_platform": "linux", "platform_machine": machine, "extra": ""}
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            yield str(requirement)


def as_lines(wheels: Mapping[str, list[Wheel]], without: set[str]) -> Iterator[str]:
    """The requirements by name; one that only one machine needs has a marker."""
    by_name: dict[str, dict[str, Wheel]] = {}
    for machine, found in wheels.items():
        for wheel in found:
            if wheel.name not in without:
                by_name.setdefault(wheel.name, {})[machine] = wheel
    for name, chosen in sorted(by_name.items()):
        versions = {wheel.version for wheel in chosen.values()}
        if len(versions) != 1:
            sys.exit(f"{name}: expected one version on all machines, got {sorted(versions)}")
        marker = "" if len(chosen) == len(MACHINES) else f' ; platform_machine == "{min(chosen)}"'
        hashes = sorted({wheel.sha256 for wheel in chosen.values()})
        yield f"{name}=={versions.pop()}{marker}"
        yield from (f" \\\n    --hash=sha256:{each}" for each in hashes)
        yield "\n"


def pinned(text: str, machine: str = "") -> dict[str, str]:
    """Versions by name in requirements or constraints; of one machine if it is given."""
    versions: dict[str, str] = {}
    for line in text.splitlines():
        pin, _, marker = line.removesuffix(" \\").partition(" ; ")
        name, equals, version = pin.partition("==")
        is_elsewhere = machine and marker and f'"{machine}"' not in marker
        if equals and not name.startswith("#") and not is_elsewhere:
            versions[canonicalize_name(name)] = version
    return versions


def _wheel(entry: dict[str, Any]) -> Wheel:
    source, metadata = entry["download_info"], entry["metadata"]
    if not source["url"].startswith("https://"):
        sys.exit(f"{metadata['name']}: expected a file of the registry, got {source['url']}")
    sha256 = source["archive_info"]["hashes"]["sha256"]
    return Wheel(canonicalize_name(metadata["name"]), metadata["version"], sha256)


if __name__ == "__main__":
    main()
