"""The tests of the CUDA provider, each of which also runs on the CPU where that is cheap.

`make test` runs them on the CPU, `make test-gpu` on CUDA. A machine without CUDA skips those, with
the reason that the server would give. The bundles have random weights: nothing is downloaded.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from benchmarks.lib import cuda_libraries
from benchmarks.lib.untrained import publish_untrained
from tests.gpu.providers import CUDA
from weir.server.config import ModelSettings
from weir.server.errors import ProviderMissing
from weir.server.repository.loader import Loader
from weir.server.runtime.session import choose_provider
from weir.server.scheduling.deadlines import Deadlines
from weir.server.telemetry.metrics import Metrics

HANG_S = 60.0

Publish = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A machine with a GPU may have other versions of libraries, which warn of other things."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session", params=["cpu", CUDA])
def provider(request: pytest.FixtureRequest) -> str:
    """The provider under test; skips if it is not there."""
    try:
        return choose_provider(request.param)
    except ProviderMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def _libraries_for_servers() -> Iterator[None]:
    """Servers find CUDA's libraries where torch brings them; torch has loaded them here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cuda_libraries.VARIABLE, cuda_libraries.library_path())
        yield


@pytest.fixture(scope="session")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Publish:
    """Publish an untrained network once for all tests; the directory of its version."""
    models = tmp_path_factory.mktemp("untrained")

    @functools.cache
    def publish(name: str, precision: str = "fp32") -> Path:
        return publish_untrained(name, models / precision, precision).path  # type: ignore[arg-type]

    return publish


@contextmanager
def loaded(loader: Loader, directory: Path) -> Iterator[list[Any]]:
    """The models of a version, closed and removed from the list at the end."""
    models: list[Any] = loader.load(directory.parent.name, directory.name, directory)
    try:
        yield models
    finally:
        while models:
            scheduler = models.pop().scheduler
            scheduler.close()
            assert scheduler.join(HANG_S)


@pytest.fixture
def loader(provider: str) -> Loader:
    """Loads versions on the provider."""
    return Loader(
        provider=provider,
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(max_queue_rows=64, threads=1, instances=1),
        deadlines=Deadlines(time.monotonic),
        metrics=Metrics(CollectorRegistry()),
    )
