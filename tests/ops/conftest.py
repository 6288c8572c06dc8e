"""A real server under a load in which everything happens, and a real Prometheus that watched it."""

from collections.abc import Iterator

import pytest

from deploy.grafana.queries import Prometheus
from tests.integration.harness import running
from tests.ops import stack, world


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It holds scrapes from before, amid and after the load, and has evaluated its rules since."""
    folder = tmp_path_factory.mktemp("watched")
    models = folder / "models"
    world.publish(models)
    settings = folder / "weir.toml"
    settings.write_text(world.SETTINGS)
    flags = ("--config", str(settings))
    with (
        running(models, folder / "weir.server.log", *flags) as server,
        stack.prometheus(server.metrics, folder) as api,
    ):
        # Counters that are first seen with a value have no rate: hence the load comes twice.
        for _ in range(2):
            world.load(server.target)
            stack.wait_for_scrape(api)
        stack.wait_for_rules(api)
        yield api
