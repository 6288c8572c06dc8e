"""The log of a server process, read as its ledger: the access log, loads, and tracebacks."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from tests.soak import ledger

Array = NDArray[Any]

STATUSES = {int(code.value[0]): code.name for code in grpc.StatusCode}
"""The names of the statuses by their numbers."""
NOT_RUN = -1.0

_NUMBERS = {name: number for number, name in STATUSES.items()}
_DTYPE = np.dtype(
    [("code", "<u8"), ("status", "<i8"), ("version", "<i8"), ("queue_s", "<f8"), ("life", "<i8")]
)


@dataclass(slots=True)
class ServerLog:
    """What a server process wrote.

    Attributes:
        lines: of the attempts of the clients: code, status, version, and time in the queue, or
            `NOT_RUN` for an attempt that no batch took.
        requests: by model, version and status; of clients that keep no ledger too.
        loads: by model and version.
        errors: messages of errors, with the last lines of their tracebacks.
    """

    lines: Array
    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    loads: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


def read(path: Path, life: int) -> ServerLog:
    """Read the log of a process; a line that was cut off is left out."""
    log = ServerLog(np.zeros(0, _DTYPE))
    rows = []
    with path.open() as file:
        for text in file:
            try:
                line: dict[str, Any] = json.loads(text)
            except ValueError:
                continue
            message = str(line.get("message"))
            model, version = str(line.get("model", "")), str(line.get("version", ""))
            if message == "request":
                if "Infer" not in str(line.get("method")):
                    continue
                log.requests[model, version, line["status"]] += 1
                code = ledger.code_on_the_wire(str(line.get("id", "")))
                if code is not None:
                    number = int(version) if version.isdigit() and len(version) < 6 else 0
                    queue_s = float(line["queue_s"]) if "compute_s" in line else NOT_RUN
                    rows.append((code, _NUMBERS[line["status"]], number, queue_s, life))
            elif message.startswith("version loaded"):
                log.loads[model, version] += 1
            if "traceback" in line or line.get("level") in ("error", "critical"):
                # The last line of a traceback is the error; the others have paths of the machine.
                error = str(line.get("traceback", "")).rpartition("\n")[2]
                log.errors.append(f"{message}: {error}"[:300])
    log.lines = np.array(rows, _DTYPE)
    return log
