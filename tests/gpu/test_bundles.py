"""Bundles of every kind of network give the answers that PyTorch gave, and leave no memory."""

import gc
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.lib.untrained import NAMES, PAIRS
from benchmarks.memory import resident_mib
from tests.gpu.conftest import Publish, loaded
from tests.gpu.providers import CUDA
from tests.helpers import onnx_models
from weir.bundle import reader
from weir.server.errors import ModelLoadError
from weir.server.repository.loader import Loader
from weir.server.repository.model_manager import trim_heap
from weir.server.runtime.session import Session

TOLERANCE = 1e-4
"""Of the largest recorded value. TF32, which is off, would cost 5e-4 to 1e-3."""

FP16 = ("lenet5", "alexnet", "inception-v1", "question", "stress", "row-digits", "series-lstm")
ON_THE_CPU = ("lenet5",)
WARM_UP = 10
"""Reloads after which memory is compared: allocators keep what a first load needed."""


def on_both(names: tuple[str, ...]) -> pytest.MarkDecorator:
    """Every name on CUDA, and a few on the CPU, where the unit tests cover the others."""
    pairs = [("cpu", name) for name in ON_THE_CPU]
    cuda = [pytest.param("cuda", name, marks=CUDA.marks) for name in names]
    return pytest.mark.parametrize(("provider", "name"), [*pairs, *cuda], indirect=["provider"])


@on_both(NAMES)
def test_bundle_gives_its_golden_answers(
    name: str, provider: str, publish: Publish, loader: Loader
) -> None:
    directory = publish(name)

    with loaded(loader, directory) as models:
        found = [(model.provider, model.golden) for model in models]

    assert len(found) == (3 if name in PAIRS else 1)
    bundle = reader.read(directory)
    recorded = [bundle.golden(part) for part in bundle.graphs if part != "model"]
    largest = max(
        float(np.abs(values).max())
        for golden in recorded or [bundle.golden()]
        if golden is not None
        for values in golden.outputs.values()
        if values.dtype.kind == "f"
    )
    for provided, difference in found:
        assert provided == provider
        assert difference <= TOLERANCE * max(1.0, largest)


@on_both(FP16)
def test_half_precision_is_within_its_parity(name: str, provider: str, publish: Publish) -> None:
    bundle = reader.read(publish(name, "fp16"))
    golden = reader.read(publish(name)).golden()
    assert golden is not None

    session = Session(bundle.model, provider=provider, threads=1)
    outputs = session.run(golden.inputs)

    tolerance = bundle.contract.tolerance
    for output, expected in golden.outputs.items():
        if expected.dtype.kind != "f":
            continue
        assert outputs[output].dtype == np.float32
        np.testing.assert_allclose(
            outputs[output], expected, rtol=tolerance.relative, atol=tolerance.absolute
        )


def test_half_precision_is_served_on_cuda_alone(
    provider: str, publish: Publish, loader: Loader
) -> None:
    directory = publish("lenet5", "fp16")
    refused = pytest.raises(ModelLoadError, match="precision fp16 is served on CUDA only")

    with refused if provider == "cpu" else nullcontext(), loaded(loader, directory) as models:
        assert [model.provider for model in models] == ["cuda"]


def used_mib(provider: str) -> Callable[[], list[float]]:
    """Resident memory of this process and, with CUDA, used memory of the device."""

    def used() -> list[float]:
        gc.collect()
        trim_heap()
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
