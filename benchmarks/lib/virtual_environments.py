"""Virtual environments of the rivals, each made once in a folder outside the tree."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_DONE = "complete"


def default_folder() -> Path:
    """`weir/benchmarks` under the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "weir" / "benchmarks"


def make(folder: Path, installs: Sequence[Sequence[str]]) -> Path:
    """The interpreter of an environment after these `pip install`s; a complete one is reused."""
    python = folder / "bin" / "python"
    done = folder / _DONE
    if done.exists():
        return python
    sys.stderr.write(f"making {folder}: {installs}\n")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    for arguments in installs:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *arguments], check=True)
    done.touch()
    return python


def site_packages(folder: Path) -> Path:
    """The site-packages of an environment."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / f"python{version}" / "site-packages"
