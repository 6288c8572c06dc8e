"""A real server under a load of every kind of request, and a real Prometheus that scraped it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import running
from tests.ops import stack, world
from tests.ops.prometheus_api import Prometheus

if TYPE_CHECKING:
    from tests.ops.browser import Browser


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Its scrapes cover the time before, during and after the load; its rules are evaluated."""
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
        # A counter whose first sample is not 0 has no rate, so the load runs twice.
        for _ in range(2):
            world.load(server.target)
            stack.wait_for_scrape(api)
        stack.wait_for_rules(api)
        yield api


@pytest.fixture
def browser() -> "Iterator[Browser]":
    """A headless Chromium whose console is checked at the end of the test."""
    from tests.ops.browser import chromium  # noqa: PLC0415 - the other tests do without selenium

    with chromium() as page:
        yield page
