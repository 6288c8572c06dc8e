"""Memory: 50 reloads leave none behind, and too little of it is an error of its own."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.memory import resident_mib
from tests.gpu.conftest import loaded
from tests.gpu.providers import CUDA
from tests.helpers import onnx_models
from weir.server.errors import OutOfMemory
from weir.server.repository.loader import Loader
from weir.server.runtime import heap
from weir.server.runtime.session import Session

WARM_UP = 10
"""Reloads after which memory is compared: allocators keep what a first load needed."""
LIMIT = {"gpu_mem_limit": str(64 << 20)}
X = np.arange(4, dtype=np.float32)[None]

on_cuda = pytest.mark.parametrize("provider", [CUDA], indirect=True)


def used_mib(provider: str) -> Callable[[], list[float]]:
    """Resident memory of this process and, with CUDA, used memory of the device."""

    def used() -> list[float]:
        gc.collect()
        heap.trim()
        host = resident_mib(os.getpid())
        if provider == "cpu":
            return [host]
        free, total = torch.cuda.mem_get_info()
        return [host, (total - free) / 2**20]

    if provider == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch, which reads the device's memory here, has no CUDA")
    return used


def test_fifty_reloads_leave_no_memory(provider: str, tmp_path: Path, loader: Loader) -> None:
    """One session that is kept would hold its 16 MiB of weights each time."""
    used, before = used_mib(provider), list[float]()
    directory = onnx_models.write_plain(tmp_path, "dense", onnx_models.dense(2048))

    for number in range(WARM_UP + 50):
        with loaded(loader, directory) as models:
            assert models[0].provider == provider
        if number == WARM_UP - 1:
            before = used()

    for first, last in zip(before, used(), strict=True):
        assert last - first < 64.0


def test_run_that_needs_too_much_memory_leaves_the_session_usable(provider: str) -> None:
    session = Session(onnx_models.cube(), provider=provider, threads=1)

    with pytest.raises(OutOfMemory):
        session.run({"x": np.ones((1, 40_000), np.float32)})

    assert session.run({"x": X})["y"].tolist() == [3.0]


@on_cuda
def test_run_beyond_the_limit_of_the_arena_is_a_lack_of_memory(provider: str) -> None:
    """400 MB, which the device has."""
    limited = Session(onnx_models.cube(), provider=provider, threads=1, provider_options=LIMIT)
    large = np.ones((1, 465), np.float32)

    with pytest.raises(OutOfMemory):
        limited.run({"x": large})

    assert limited.run({"x": X})["y"].tolist() == [3.0]
    unlimited = Session(onnx_models.cube(), provider=provider, threads=1)
    assert unlimited.run({"x": large})["y"].tolist() == [1.0]


@on_cuda
def test_weights_beyond_the_limit_of_the_arena_are_a_lack_of_memory(provider: str) -> None:
    with pytest.raises(OutOfMemory):
        Session(onnx_models.dense(5000), provider=provider, threads=1, provider_options=LIMIT)
