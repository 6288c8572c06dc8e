"""Runs in a container of the image `serve`: prints the permissions of its processes as JSON.

It uses only the standard library, because the image has no test packages.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path


def _status() -> dict[str, str]:
    lines = Path("/proc/1/status").read_text("ascii").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _may_write(folder: str) -> bool:
    try:
        Path(folder, "written").write_bytes(b"")
    except OSError:
        return False
    return True


def _may_run_from(folder: str) -> bool:
    program = Path(folder, "true")
    try:
        shutil.copy("/bin/true", program)
        return subprocess.run([program], check=False).returncode == 0
    except OSError:
        return False


def _sizes() -> dict[str, int]:
    """Sizes of the installed Python packages in bytes."""
    places = Path(sys.prefix).glob("lib/python3*/site-packages/*")
    return {place.name: _bytes(place) for place in places}


def _bytes(place: Path) -> int:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file())


def main() -> None:
    """Print the report."""
    status = _status()
    report = {
        "user": int(status["Uid"].split()[0]),
        "capabilities": int(status["CapBnd"], 16) | int(status["CapEff"], 16),
        "may gain privileges": status["NoNewPrivs"] != "1",
        "writes": [
            folder
            for folder in (
                "/",
                "/models",
                "/opt/weir",
                "/tmp",
                "/var/tmp",
                "/run",
                str(Path.home()),
            )
            if _may_write(folder)
        ],
        "runs programs from /tmp": _may_run_from("/tmp"),
        "packages": [name for name in ("torch", "onnxscript", "pytest") if find_spec(name)],
        "programs": [name for name in ("cc", "gcc", "c++", "make", "git") if shutil.which(name)],
        "sizes": _sizes(),
        "environment": sorted(name for name in os.environ if name.startswith("WEIR_")),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
