"""What makes a run repeatable: seeds, the device and its arithmetic, versions and commit.

Row order and augmentation of every step are drawn from (seed, purpose, epoch, step). A resumed
run therefore draws the same numbers as an uninterrupted one. No generator's state is saved for
them.
"""

import enum
import platform
import subprocess
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from weir.training.errors import DeviceError

DeviceName = Literal["auto", "cpu", "cuda"]


class Purpose(enum.IntEnum):
    """What a random number is for; each purpose has its own sequence."""

    DIVISION = 0
    ORDER = 1
    DISTORTION = 2
    DROPOUT = 3


def derive_seed(seed: int, purpose: Purpose, *position: int) -> int:
    """Derive a 63-bit seed for one position in the run, such as (epoch, step)."""
    words = np.random.SeedSequence([seed, purpose, *position]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) & 0x7FFF_FFFF_FFFF_FFFF


def generator_for(seed: int, purpose: Purpose, *position: int) -> torch.Generator:
    """Return a CPU generator for one position in the run."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *position))


def choose_device(name: DeviceName) -> torch.device:
    """Return the named device; `auto` takes CUDA if present, `cuda` needs it (`DeviceError`)."""
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise DeviceError(
            f"no CUDA device here: torch {torch.__version__} sees none; use cpu or auto"
        )
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware computes bfloat16, which needs no scaling of the loss."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def device_name(device: torch.device) -> str:
    """Return the device's name for the run's record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def make_deterministic(cpu_threads: int | None) -> None:
    """Make torch compute the same each time; on CUDA as far as cuDNN can.

    Args:
        cpu_threads: sums are split among threads, so the last bits depend on their number. None
            leaves the number to torch, which takes one a core.
    """
    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def versions() -> dict[str, str]:
    """Return the versions of Python, torch and numpy."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def commit() -> str | None:
    """Return this code's git commit, with `-dirty` if files differ; None outside a checkout."""
    here = Path(__file__).resolve()
    # A repository that only contains the environment says nothing about this code.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  fixed arguments
            ["git", *arguments],  # noqa: S607  the user's own git
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
