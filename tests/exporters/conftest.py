"""Fixtures of the tests with files that exporters wrote."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.integration.harness import Client, running

Serve = Callable[[Path], AbstractContextManager[Client]]


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these files out of other runs: the libraries take seconds to import."""
    return True if "not exporters" in config.option.markexpr else None


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts a server of a model repository; its value is a client of it."""

    @contextmanager
    def start(models: Path, *flags: str) -> Iterator[Client]:
        with (
            running(models, tmp_path / "weir.server.log", *flags) as server,
            Client(server.target) as client,
        ):
            yield client

    return start
