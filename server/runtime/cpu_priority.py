"""CPU priority of the threads that compute; by it the operating system divides the cores.

At equal priority, a thread that wakes up waits for the end of another one's time slice, up to a few
milliseconds. A short run wakes threads several times: the I/O thread for the request, a session
thread for the batch, the I/O thread for the answer. Beside a model with long runs it therefore took
many times as long.

Rules:
- A thread whose runs take long has a lower priority, so that the I/O thread and short runs go
  first. They leave the cores again at once.
- On one core all are equal: beside a flooded LeNet-5, a model with long runs did 30 % of what it
  does alone, and with a lower priority 16 %. With more cores, a flood of short runs, which pass one
  I/O thread, leaves some of them.
- Long runs have one priority, whatever their length, and share the cores equally.
- A priority is never raised again: that needs a privilege. A reload makes new threads.
- It holds among the processes of one control group, as of one container.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from weir.server.runtime.cores import usable_cores
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONG_RUN_S = 0.004
"""CPU time of a run that is long: more than a time slice, which takes 3 ms on Linux."""
# Steps of niceness below the others. LeNet-5, one call in flight beside a flooded model on two
# cores: 1600 calls/s at 0, 1800 at 3, 2430 at 5, 2430 at 7, 2700 at 10, 2500 at 19; alone 3100. The
# flooded model does as much in each case. At 5 a run gets a third of the time of a thread that
# competes for its core, at 10 a tenth, so that a busy neighbour would starve it.
_NICENESS = 5
_LOWEST = 19
# Of the way from the mean to the last run. Four long runs in a row lower the priority, and one that
# is much longer, such as the first, does not.
_NEW_SHARE = 0.2
_OUTLIER = 2.0


def lower() -> None:
    """Lower the priority of the calling thread, and of the threads that it starts from now on."""
    # Elsewhere a niceness is that of the process.
    if sys.platform != "linux" or usable_cores() == 1:
        return
    thread = threading.get_native_id()
    try:
        niceness = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(_LOWEST, niceness + _NICENESS))
    except OSError as error:  # not every sandbox has the call
        logger.warning(
            "priority not lowered thread=%s reason=%s", threading.current_thread().name, error
        )


def lowered(call: Callable[[], T]) -> T:
    """The result of a call on a thread of lower priority, which those that it starts inherit."""
    result: Future[T] = Future()

    def work() -> None:
        lower()
        try:
            result.set_result(call())
        except Exception as error:  # noqa: BLE001 - raised by the caller
            result.set_exception(error)

    thread = SupervisedThread(target=work, name="weir-open", daemon=True)
    thread.start()
    thread.join()
    return result.result()


class RunPriority:
    """Priority of one session thread, by the CPU time of its runs.

    Args:
        cpu_clock: CPU time of the calling thread.
    """

    def __init__(
        self,
        *,
        cpu_clock: Callable[[], float] = time.thread_time,
        lower: Callable[[], None] = lower,
    ) -> None:
        self._cpu_clock = cpu_clock
        self._lower = lower
        self._mean_s = 0.0
        self._ended_s = cpu_clock()
        self.is_lowered = False

    def ran(self, run_s: float) -> None:
        """Called by the thread after each of its runs.

        Args:
            run_s: its elapsed time, which is no less than its CPU time.
        """
        if self.is_lowered:
            return
        # Reading the clock takes a microsecond, which short runs are spared. What they computed
        # counts with the next long one, up to the limit of an outlier.
        if run_s >= LONG_RUN_S:
            ended_s = self._cpu_clock()
            run_s = min(ended_s - self._ended_s, _OUTLIER * LONG_RUN_S)
            self._ended_s = ended_s
        self._mean_s += _NEW_SHARE * (run_s - self._mean_s)
        if self._mean_s >= LONG_RUN_S:
            self.is_lowered = True
            self._lower()
