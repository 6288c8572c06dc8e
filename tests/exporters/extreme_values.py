"""Runs models of one operator on extreme values and shapes, as a request may hold them.

The models are those of the onnx package, and some with operators of com.microsoft.

A program of its own, since what it looks for ends or hangs a process:

    python -m tests.exporters.extreme_values SEED TRIALS

It prints the trials that ended or hung their process, as JSON. `arguments` makes the inputs of such
a trial again. A process is forked for every few models: it starts at once and holds little memory.
"""

import json
import os
import random
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.exporters import microsoft_operators
from tests.exporters.node_tests import NodeTest, node_tests, session_of
from weir.server.errors import ServerError
from weir.server.runtime.session import RunStop, Session

Array = NDArray[Any]

HANG_S = 60.0
"""Of a run; the longest that ends fills the memory limit with one operator."""

MODELS = 20
"""That a process runs."""

MEMORY_BYTES = 4 << 30
"""A run that needs more must fail; the address space of ONNX Runtime itself is large."""

STOP_S = 2.0
"""When a run is stopped that may not end by itself, as the server stops it at its deadline."""

_NEWEST_OPSET, _OLDEST_OPSET = 26, 13
_INTEGERS = (1, 2, -2, 3, 5, 1000, -1000, 2**16, 2**24, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e9, 1e38, -1e38, 1e-45, 2.0**63, np.nan, np.inf, -np.inf)
_TEXTS = (b"", b"\0", b"1", b"nan", b"-1", b"x" * 100_000, "é".encode(), b"9" * 400, b"a b c")
_SIZES = (0, 0, 1, 2, 7)


def declared(model: onnx.ModelProto) -> None:
    """Leave the shapes of inputs and outputs as they are."""


def named(model: onnx.ModelProto) -> None:
    """Let each axis of inputs and outputs have any size."""
    for value in (*model.graph.input, *model.graph.output):
        for position, axis in enumerate(value.type.tensor_type.shape.dim):
            axis.dim_param = f"{value.name}.{position}"
    model.graph.ClearField("value_info")


def free(model: onnx.ModelProto) -> None:
    """Let inputs and outputs have any number of axes."""
    for value in (*model.graph.input, *model.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    model.graph.ClearField("value_info")


FORMS: Mapping[str, Callable[[onnx.ModelProto], None]] = {
    each.__name__: each for each in (declared, named, free)
}


def cases() -> list[NodeTest]:
    """The models with inputs; an expanded function is made of operators that have their own."""
    tests = [
        case
        for case in node_tests()
        if case.inputs and "_expanded" not in case.name and "castlike" not in case.name
    ]
    return [*tests, *microsoft_operators.models()]


def runnable(case: NodeTest) -> NodeTest | None:
    """The model; with an older operator set if it is too new for ONNX Runtime."""
    return next(filter(session_of, _versions(case)), None)


def _versions(case: NodeTest) -> Iterator[NodeTest]:
    yield case
    model = onnx.load_from_string(case.model)
    model.ir_version = min(model.ir_version, 10)
    for version in range(_NEWEST_OPSET, _OLDEST_OPSET, -1):
        for opset in model.opset_import:
            if opset.domain in ("", "ai.onnx"):
                opset.version = version
        yield NodeTest(case.name, model.SerializeToString(), case.inputs)


def loaded(case: NodeTest, form: str) -> Session | None:
    """The server's session of a model in a form; None if the server refuses it."""
    model = onnx.load_from_string(case.model)
    FORMS[form](model)
    try:
        session = Session(model.SerializeToString(), provider="cpu", threads=1)
        session.check_axes()
    except ServerError:
        return None
    return session


def arguments(case: NodeTest, form: str, seed: int, trial: int) -> dict[str, Array]:
    """The inputs of a trial: the model's own, some of them changed."""
    chance = random.Random(f"{seed}/{case.name}/{form}/{trial}")
    inputs = dict(case.inputs or {})
    for name in chance.sample(sorted(inputs), chance.randint(1, len(inputs))):
        inputs[name] = _changed(chance, inputs[name], form)
    return inputs


def _changed(chance: random.Random, array: Array, form: str) -> Array:
    if array.dtype.kind not in "biufO":
        return array
    if form != "declared" and chance.random() < 0.3:
        array = _reshaped(chance, array, has_any_axes=form == "free")
        if chance.random() < 0.5:
            return array
    changed = array.copy()
    if not array.size:
        return changed
    if chance.random() < 0.6:
        changed[...] = _extreme(chance, array.dtype)
    else:
        for _ in range(chance.choice((1, 1, 3))):
            place = np.unravel_index(chance.randrange(array.size), array.shape)
            changed[place] = _extreme(chance, array.dtype)
    return changed


def _reshaped(chance: random.Random, array: Array, *, has_any_axes: bool) -> Array:
    shape = list(array.shape)
    for _ in range(chance.choice((1, 1, 2))):
        what = chance.random()
        if has_any_axes and what < 0.15:
            shape.insert(chance.randint(0, len(shape)), chance.choice((0, 1, 2)))
        elif has_any_axes and what < 0.3 and shape:
            shape.pop(chance.randrange(len(shape)))
        elif shape:
            place = chance.randrange(len(shape))
            shape[place] = chance.choice((*_SIZES, shape[place] + 1))
    return np.resize(array, shape)


def _extreme(chance: random.Random, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return chance.random() < 0.5
    if dtype.kind == "f":
        return chance.choice(_FLOATS)
    if dtype.kind == "O":
        return chance.choice(_TEXTS)
    bounds = np.iinfo(dtype)
    lowest, highest = int(bounds.min), int(bounds.max)
    value = chance.choice((lowest, -1, 0, highest, chance.choice(_INTEGERS)))
    return min(max(value, lowest), highest)


def main(seed: int, trials: int) -> None:
    """Run every model in all forms, and print the faults."""
    # Casts of floats that no smaller type holds, in the tests themselves.
    np.seterr(all="ignore")
    waiting, faults = cases(), []
    while waiting:
        fault, done = _forked(waiting[:MODELS], seed, trials)
        if fault is not None:
            faults.append(fault)
        # The rest of the trials of a model with a fault is left out.
        del waiting[: max(1, done)]
    sys.stdout.write(json.dumps(faults))


def _forked(models: list[NodeTest], seed: int, trials: int) -> tuple[list[object] | None, int]:
    """Run models in a process of their own: the trial that ended it, and how many models ran."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            _run_all(models, seed, trials, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    said = b""
    is_hanging = False
    while not is_hanging:
        is_hanging = not select.select([reading], [], [], HANG_S)[0]
        if is_hanging:
            os.kill(child, signal.SIGKILL)
        elif read := os.read(reading, 1 << 16):
            # A line is written at once, so the last one is whole.
            said = (said + read)[-(1 << 16) :]
        else:
            break
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if not status:
        return None, len(models)
    position, *trial = json.loads(said.splitlines()[-1])
    return [*trial, "hangs" if is_hanging else f"ended: {status}"], position + 1


def _run_all(models: list[NodeTest], seed: int, trials: int, writing: int) -> None:
    """Run models, and write before each trial what it is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for position, model in enumerate(models):
        os.write(writing, json.dumps([position, model.name, "", 0]).encode() + b"\n")
        case = runnable(model)
        if case is None:
            continue
        for form in FORMS:
            session = loaded(case, form)
            if session is None:
                continue
            for trial in range(trials):
                line = json.dumps([position, model.name, form, trial])
                os.write(writing, line.encode() + b"\n")
                run(session, arguments(case, form, seed, trial))


def run(session: Session, inputs: Mapping[str, Array]) -> None:
    """Run a model as the server does: errors are answers."""
    stop = RunStop()
    timer = threading.Timer(STOP_S, stop.set) if session.has_loop else None
    if timer is not None:
        timer.start()
    try:
        session.run(_admitted(session, inputs), stop)
    except ServerError:
        pass
    finally:
        if timer is not None:
            timer.cancel()


def _admitted(session: Session, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs as the server hands them to a session: BF16 as its bits."""
    bits = {spec.name for spec in session.inputs if spec.datatype == "BF16"}
    return {
        name: array.view(np.uint16) if name in bits else array for name, array in inputs.items()
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
