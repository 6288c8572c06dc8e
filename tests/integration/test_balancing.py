"""One client and three servers: stops, kills, drains and a server that joins late.

The drill makes `CALLS` calls; `DRILL_CALLS=100000` makes as many.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import weir
from tests.helpers.dns_server import DnsServer
from tests.helpers.load import Load
from tests.helpers.ports import free_port
from tests.helpers.waiting import wait_until
from tests.integration.harness import (
    ANSWER_S,
    Array,
    Server,
    X,
    drain,
    running,
)
from weir.client.balancing import Servers

logger = logging.getLogger(__name__)

CALLS = int(os.environ.get("DRILL_CALLS", "6000"))
NUMBERS = range(3)


@dataclass
class Fleet:
    """Three servers on ports of their own, each of which may stop and come back."""

    models: Path
    folder: Path
    flags: Sequence[str]
    stack: ExitStack
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in NUMBERS])
    servers: dict[int, Server] = field(default_factory=dict)
    starts: int = 0

    @property
    def targets(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    def start(self, number: int) -> Server:
        self.starts += 1
        log = self.folder / f"log-{self.starts}"
        flags = (*self.flags, "--port", str(self.ports[number]))
        server = self.stack.enter_context(running(self.models, log, *flags))
        self.servers[number] = server
        return server


@contextmanager
def fleet(models: Path, folder: Path, flags: Sequence[str], *, count: int = 3) -> Iterator[Fleet]:
    with ExitStack() as stack:
        made = Fleet(models, folder, flags, stack)
        for number in range(count):
            made.start(number)
        yield made


def answered(server: Server) -> float:
    return server.counts("affine").get("OK", 0)


@contextmanager
def load_on(target: Servers) -> Iterator[Load]:
    """Calls of four threads on one client, and of eight tasks on an asyncio client."""
    load = Load()

    async def call_async() -> None:
        async with weir.AsyncClient(target, timeout_s=ANSWER_S) as client:

            async def call(values: Array) -> None:
                while not load.is_over.is_set():
                    with load.counting():
                        answer = await client.infer("affine", {"x": values})
                        np.testing.assert_array_equal(answer["y"], 2 * values + 1)

            await asyncio.gather(*(call(X - number) for number in range(8)))

    with weir.Client(target, timeout_s=ANSWER_S) as client:
        calls = [partial(infer, client, X + number) for number in range(4)]
        callers = [partial(load.repeat, call) for call in calls]
        with load.running([*callers, lambda: asyncio.run(call_async())]):
            yield load


def infer(client: weir.Client, values: Array) -> None:
    """One call, and a check of its answer."""
    answer = client.infer("affine", {"x": values})
    np.testing.assert_array_equal(answer["y"], 2 * values + 1)


def terminate(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.ended() == 0


def kill(server: Server) -> None:
    server.process.kill()
    server.ended()


@pytest.mark.timeout(60 + CALLS // 50)
@pytest.mark.parametrize("row", ["F17"])
def test_stop_kill_and_drain_of_one_server_of_three_cost_no_call(
    few: Path, tmp_path: Path, row: str
) -> None:
    flags = ("--config", str(few / "weir.toml"), "--grace-s", "2")
    with fleet(few, tmp_path, flags) as servers:
        faults = [terminate, kill, drain]
        with load_on(servers.targets) as load:
            load.wait_for(CALLS // 20)
            count = 0
            while count < len(faults) or load.ended < CALLS:
                number = count % len(NUMBERS)
                faults[count % len(faults)](servers.servers[number])
                load.wait_for(CALLS // 20)
                wait_for_an_answer(servers.start(number))
                count += 1
                if count % len(faults) == 0:
                    # The next round meets each server with another fault.
                    faults.append(faults.pop(0))

        load.require_no_failure()
        assert load.answers >= CALLS
        logger.info("drill ended answers=%d faults=%d", load.answers, count)


@pytest.mark.parametrize("row", ["F17"])
def test_stop_of_one_server_costs_no_call_of_a_client_that_checks_no_health(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    """With a header of its own, the client has no health checks, and retries only."""
    load = Load()

    def call(target: Servers) -> None:
        with weir.Client(target, metadata={"authorization": "Bearer any"}) as client:
            load.repeat(partial(infer, client, X))

    with (
        fleet(few, tmp_path, flags, count=2) as servers,
        load.running([partial(call, servers.targets[:2])] * 8),
    ):
        for _ in range(3):
            wait_for_an_answer(servers.servers[1])
            terminate(servers.servers[1])
            servers.start(1)

    load.require_no_failure()


def test_server_that_joins_late_gets_its_share_of_a_list(
    few: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with fleet(few, tmp_path, (*flags, "--max-connection-age-s", "1"), count=2) as servers:
        with load_on(servers.targets) as load:
            load.wait_for(200)
            late = servers.start(2)
            wait_for_an_answer(late)
            assert_even(list(servers.servers.values()), load)

        load.require_no_failure()


def test_server_that_joins_late_gets_its_share_of_a_name(
    few: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """DNS learns its address; clients ask again when a connection has reached its age."""
    port = free_port()
    flags = (*flags, "--port", str(port), "--max-connection-age-s", "3")
    with ExitStack() as stack:

        def start(number: int) -> Server:
            host = f"127.0.0.{2 + number}"
            log = tmp_path / f"log-{number}"
            return stack.enter_context(running(few, log, *flags, "--host", host))

        servers = [start(0), start(1)]
        names = stack.enter_context(DnsServer("weir.test", ttl_s=0))
        names.addresses = ["127.0.0.2", "127.0.0.3"]
        with load_on(f"dns://127.0.0.1:{names.port}/weir.test:{port}") as load:
            load.wait_for(200)
            servers.append(start(2))
            names.addresses.append("127.0.0.4")
            wait_for_an_answer(servers[2])
            assert_even(servers, load)

        load.require_no_failure()


def wait_for_an_answer(server: Server) -> None:
    wait_until(lambda: answered(server) > 0, "a server that is there gets no calls")


def assert_even(servers: Sequence[Server], load: Load) -> None:
    """Each server gets its share of the calls that follow."""
    load.wait_for(100)
    before = [answered(server) for server in servers]
    load.wait_for(3000)
    counts = [answered(server) - first for server, first in zip(servers, before, strict=True)]
    # While a connection is opened again at its age, the others get its calls.
    assert all(count > 0.2 * sum(counts) for count in counts), counts


@pytest.mark.parametrize("row", ["F17"])
def test_stop_of_one_server_costs_no_generated_text(
    encoder_decoders: Path, tmp_path: Path, transport: str, row: str
) -> None:
    load = Load()
    texts: set[str] = set()

    def call(target: Servers) -> None:
        with weir.Client(target, timeout_s=ANSWER_S) as client:
            load.repeat(lambda: texts.add(client.generate("pair", "hgfedc").result().text))

    with (
        fleet(encoder_decoders, tmp_path, ("--transport", transport), count=2) as servers,
        load.running([partial(call, servers.targets[:2])] * 4),
    ):
        for _ in range(2):
            load.wait_for(50)
            terminate(servers.servers[1])
            load.wait_for(50)
            servers.start(1)

    load.require_no_failure()
    assert len(texts) == 1
