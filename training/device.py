"""Where training computes, and what that place can do."""

from typing import Literal

import torch

from weir.training.errors import DeviceError

DeviceName = Literal["auto", "cpu", "cuda"]


def choose_device(name: DeviceName) -> torch.device:
    """The device asked for; `auto` takes CUDA where there is one.

    Raises:
        DeviceError: CUDA was asked for and is not here.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise DeviceError(
            f"no CUDA device here: torch {torch.__version__} sees none; use cpu or auto"
        )
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def has_mixed_precision(device: torch.device) -> bool:
    """True where bfloat16 is computed by the hardware; it needs no scaling of the loss."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def describe(device: torch.device) -> str:
    """Its name for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def settle_arithmetic(cpu_threads: int | None) -> None:
    """Make torch compute the same every time; on CUDA as far as cuDNN can.

    Args:
        cpu_threads: how many; sums are split among them, so the last bits depend on their number. None
            leaves it to torch, which takes one a core.
    """
    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
