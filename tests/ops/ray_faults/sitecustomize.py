"""Faults of a Ray node's processes, which import this module when they start.

    FAULTS/written   once in the cluster, a process writes a file of scores and dies at once
    FAULTS/scoring   on a node with STOPS, an actor never answers for its second table

The files say that it happened. See tests/ops/test_ray.py.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

FAULTS = Path(os.environ["FAULTS"])


def _plant() -> None:
    import pyarrow.dataset as ds  # noqa: PLC0415 - only in the processes that score

    from weir.score import rows  # noqa: PLC0415

    write, score = ds.write_dataset, rows.score_table
    tables = 0

    def write_and_die(*args: Any, **options: Any) -> None:
        write(*args, **options)
        try:
            (FAULTS / "written").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def score_or_stop(*args: Any) -> Any:
        nonlocal tables
        tables += 1
        if "STOPS" in os.environ and tables == 2:
            (FAULTS / "scoring").touch()
            threading.Event().wait()
        return score(*args)

    ds.write_dataset = write_and_die
    rows.score_table = score_or_stop  # type: ignore[assignment]


if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    _plant()
