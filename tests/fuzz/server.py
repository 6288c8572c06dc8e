"""The server process that is fuzzed, started again if it has died."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fuzz.models import write_repository
from tests.integration.harness import Client, Server


class FuzzedServer:
    """A server of the models of `contract_model`.

    Args:
        folder: for its models and logs.
        planted: the name of a planted bug, or nothing.
        flags: further ones of the command line.
    """

    def __init__(self, folder: Path, planted: str = "", flags: tuple[str, ...] = ()) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        models, settings = write_repository(folder)
        program = ["tests.fuzz.planted", planted] if planted else ["weir.server"]
        self._command = [
            sys.executable, "-m", *program, str(models), "--config", str(settings),
            "--provider", "cpu", "--port", "0", "--metrics-port", "0", *flags,
        ]  # fmt: skip
        self._starts = 0
        self._server = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.kill()

    @property
    def target(self) -> str:
        """Host and port."""
        return self._server.target

    @property
    def process(self) -> Server:
        """The newest process."""
        return self._server

    def has_died(self) -> bool:
        """Whether the process has ended."""
        return self._server.process.poll() is not None

    def restart(self) -> None:
        """Start it again, on another port."""
        self._server.kill()
        self._server = self._start()

    def _start(self) -> Server:
        self._starts += 1
        log = self._folder / f"server-{self._starts}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                process_group=0,  # Ctrl-C is for the fuzzing alone
            )
        server = Server(process, log)
        try:
            with Client(server.target) as client:
                client.wait_for_health("SERVING")
        except BaseException:
            server.kill()
            raise
        return server
