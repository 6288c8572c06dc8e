"""A run in a process of its own, for what may end a process.

ONNX Runtime 1.31 ends it when the CPU is given a recurrent operator in FP16, and it gives the CPU
every node that the provider has no kernel for.
"""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from numpy.typing import NDArray

from weir.server.runtime.session import Session

Array = NDArray[Any]


def outputs_of(graph: bytes, provider: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a graph; BrokenProcessPool if the run ends its process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run, graph, provider, dict(inputs)).result()


def _run(graph: bytes, provider: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return Session(graph, provider=provider, threads=1).run(inputs)
