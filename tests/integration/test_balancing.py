"""One client and three servers: stops, kills, drains and a server that joins late.

The drill makes `CALLS` calls; `DRILL_CALLS=100000` makes as many.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import weir
from tests.helpers.name_server import name_server
from tests.helpers.ports import free_port
from tests.integration.harness import (
    ANSWER_S,
    FOR_EVER,
    Array,
    Client,
    Server,
    X,
    burn,
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


@dataclass
class Load:
    """Calls of four threads on one client, and of eight tasks on an asyncio client.

    Attributes:
        answers: how many were right.
        failures: what the others raised, or that they were wrong.
    """

    target: Servers
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        with weir.Client(self.target, timeout_s=ANSWER_S) as client:
            threads = [threading.Thread(target=self._call, args=(client, n)) for n in range(4)]
            threads.append(threading.Thread(target=lambda: asyncio.run(self._call_async())))
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self.is_over.set()
                for thread in threads:
                    thread.join()

    def wait_for(self, more: int) -> None:
        """Return once so many more calls have ended."""
        wanted = self.ended + more
        end_s = time.monotonic() + ANSWER_S + more / 100
        while self.ended < wanted:
            assert time.monotonic() < end_s, f"{self.ended} calls of {wanted}"
            time.sleep(0.01)

    @property
    def ended(self) -> int:
        return self.answers + len(self.failures)

    def _call(self, client: weir.Client, number: int) -> None:
        values = X + number
        while not self.is_over.is_set():
            try:
                self._count(client.infer("affine", {"x": values}), values)
            except weir.WeirError as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    async def _call_async(self) -> None:
        async with weir.AsyncClient(self.target, timeout_s=ANSWER_S) as client:

            async def call(number: int) -> None:
                values = X - number
                while not self.is_over.is_set():
                    try:
                        self._count(await client.infer("affine", {"x": values}), values)
                    except weir.WeirError as error:
                        self.failures.append(f"asyncio {type(error).__name__}: {error}")

            await asyncio.gather(*(call(number) for number in range(8)))

    def _count(self, answer: weir.Answer, values: Array) -> None:
        with self.lock:
            if np.array_equal(answer["y"], 2 * values + 1):
                self.answers += 1
            else:
                self.failures.append(f"a wrong answer: {answer['y']} to {values}")


def terminate(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.ended() == 0


def kill(server: Server) -> None:
    server.process.kill()
    server.ended()


def drain(server: Server) -> None:
    """SIGTERM while a request runs: the server lives on for its grace, and refuses calls."""
    with Client(server.target) as client:
        run = client.send(burn(FOR_EVER), timeout=2 * ANSWER_S)
        server.wait_for_metric(1, "weir_running_requests", model="burner")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
        assert run.exception(ANSWER_S) is not None


@pytest.mark.timeout(60 + CALLS // 50)
@pytest.mark.parametrize("row", ["F17"])
def test_stop_kill_and_drain_of_one_server_of_three_cost_no_call(
    few: Path, tmp_path: Path, row: str
) -> None:
    flags = ("--config", str(few / "weir.toml"), "--grace-s", "2")
    with fleet(few, tmp_path, flags) as servers:
        load = Load(servers.targets)
        faults = [terminate, kill, drain]
        with load.running():
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

        assert not load.failures, f"{len(load.failures)} of {load.ended}: {load.failures[:5]}"
        assert load.answers >= CALLS
        logger.info("drill ended answers=%d faults=%d", load.answers, count)


@pytest.mark.parametrize("row", ["F17"])
def test_stop_of_one_server_costs_no_call_of_a_client_that_checks_no_health(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    """With a header of its own, the client has no health checks, and retries only."""
    with fleet(few, tmp_path, flags, count=2) as servers:
        target = servers.targets[:2]
        calls: list[str] = []
        failures: list[str] = []
        is_over = threading.Event()

        def call() -> None:
            with weir.Client(target, metadata={"authorization": "Bearer any"}) as client:
                while not is_over.is_set():
                    try:
                        client.infer("affine", {"x": X})
                        calls.append("")
                    except weir.WeirError as error:
                        failures.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                wait_for_an_answer(servers.servers[1])
                terminate(servers.servers[1])
                servers.start(1)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

        assert not failures, f"{len(failures)} of {len(calls)}: {failures[:5]}"


def test_server_that_joins_late_gets_its_share_of_a_list(
    few: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with fleet(few, tmp_path, (*flags, "--max-connection-age-s", "1"), count=2) as servers:
        load = Load(servers.targets)
        with load.running():
            load.wait_for(200)
            late = servers.start(2)
            wait_for_an_answer(late)
            assert_even(list(servers.servers.values()), load)

        assert not load.failures, load.failures[:5]


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
        names = stack.enter_context(name_server("127.0.0.2", "127.0.0.3"))
        load = Load(f"dns://{names.address}/weir.test:{port}")
        with load.running():
            load.wait_for(200)
            servers.append(start(2))
            names.addresses.append("127.0.0.4")
            wait_for_an_answer(servers[2])
            assert_even(servers, load)

        assert not load.failures, load.failures[:5]


def wait_for_an_answer(server: Server) -> None:
    server.wait_until(lambda: answered(server) > 0, "a server that is there gets no calls")


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
    with fleet(encoder_decoders, tmp_path, ("--transport", transport), count=2) as servers:
        texts: list[str] = []
        failures: list[str] = []
        is_over = threading.Event()

        def call() -> None:
            with weir.Client(servers.targets[:2], timeout_s=ANSWER_S) as client:
                while not is_over.is_set():
                    try:
                        texts.append(client.generate("pair", "hgfedc").result().text)
                    except weir.WeirError as error:
                        failures.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                wait_until(lambda: len(texts) >= 50)
                terminate(servers.servers[1])
                texts.clear()
                wait_until(lambda: len(texts) >= 50)
                servers.start(1)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

        assert not failures, failures[:5]
        assert len(set(texts)) == 1


def wait_until(is_true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + ANSWER_S
    while not is_true():
        assert time.monotonic() < end_s
        time.sleep(0.01)
