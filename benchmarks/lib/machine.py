"""The machine of a measurement."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import grpc
import onnxruntime as ort


def machine() -> str:
    """Cores, Python and package versions."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}, onnxruntime {ort.__version__}, weir {version('weir')}"
    )


def busy_cores(seconds: float = 1.0) -> float:
    """Number of cores that are busy now."""
    before = _busy_s()
    time.sleep(seconds)
    return (_busy_s() - before) / seconds


def _busy_s() -> float:
    """CPU time of all cores so far, without idle and I/O wait; guest time counts once."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, *interrupts_and_steal = fields[:8]
    return (user + nice + system + sum(interrupts_and_steal)) / os.sysconf("SC_CLK_TCK")
