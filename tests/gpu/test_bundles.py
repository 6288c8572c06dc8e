"""Bundles of every kind of network give the answers that PyTorch gave."""

from contextlib import nullcontext

import numpy as np
import pytest

from benchmarks.lib.untrained import NAMES, PAIRS
from tests.gpu.conftest import Publish, loaded
from tests.gpu.isolated import outputs_of
from tests.gpu.providers import CUDA
from weir.bundle import reader
from weir.server.errors import ModelLoadError
from weir.server.repository.loader import Loader

TOLERANCE = 1e-4
"""Of the largest recorded value. TF32, which is off, would cost 5e-4 to 1e-3."""

FP16 = ("lenet5", "alexnet", "inception-v1", "question", "stress", "row-digits", "series-lstm")
ON_THE_CPU = ("lenet5",)


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

    outputs = outputs_of(bundle.model, provider, golden.inputs)

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
