from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.unit.weir.fake_server import FakeServer, handlers


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """The fake server, running."""
    fake = FakeServer(target="")
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=handlers(fake))
        fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield fake
        server.stop(0).wait()


@pytest.fixture
def nobody() -> str:
    """A target where nothing listens."""
    return "127.0.0.1:1"
