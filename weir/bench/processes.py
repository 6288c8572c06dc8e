"""One load from several processes: each its share, all started together."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError

from weir.bench import generator
from weir.bench.plan import Plan
from weir.bench.tally import Tally, merge
from weir.client.errors import WeirError

_START_S = 60.0


def run(plan: Plan, processes: int) -> Tally:
    """Make the plan's calls from as many processes; one process is this one.

    Raises:
        CallError: the server refused the first call.
        WeirError: a process ended without a result.
    """
    if processes == 1:
        return generator.run(plan)
    # A forked gRPC does not work; a spawned process starts afresh.
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    started, receivers = [], []
    for share in plan.shares(processes):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(share, barrier, sender), daemon=True)
        process.start()
        sender.close()
        started.append(process)
        receivers.append(receiver)
    try:
        return merge(_checked([_receive(receiver) for receiver in receivers]))
    finally:
        for process in started:
            process.terminate()
            process.join()


def _work(plan: Plan, barrier: Barrier, sender: "Connection[object, object]") -> None:
    # Ctrl-C goes to the whole group; the parent ends its children itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send(generator.run(plan, lambda: barrier.wait(_START_S)))
    except WeirError as error:
        sender.send(error)
        barrier.abort()
    except BrokenBarrierError:
        sender.send(None)


def _receive(receiver: "Connection[object, object]") -> object:
    try:
        return receiver.recv()
    except EOFError:
        return None


def _checked(results: list[object]) -> list[Tally]:
    """The tallies, if every process has one; otherwise the reason that one of them gave."""
    tallies = [result for result in results if isinstance(result, Tally)]
    if len(tallies) == len(results):
        return tallies
    for result in results:
        if isinstance(result, WeirError):
            raise result
    raise WeirError("a process of the load generator ended without a result")
