"""What a run was made with: versions, and the commit of this code."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import torch


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def commit() -> str | None:
    """The commit this code is of, with `-dirty` where files differ; none outside a git checkout."""
    here = Path(__file__).resolve()
    # A repository that happens to contain our environment says nothing about this code.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  fixed arguments
            ["git", *arguments],  # noqa: S607  whichever git the user has
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
