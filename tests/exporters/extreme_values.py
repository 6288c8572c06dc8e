"""Runs the onnx package's models on extreme values and shapes, as a request may hold them.

A program of its own, since what it looks for ends or hangs the process:

    python -m tests.exporters.extreme_values SEED TRIALS START

It writes a line of JSON before each run: the position of the model, its name, its form and the
number of the trial. `arguments` makes the inputs of such a line again.
"""

import json
import random
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.exporters.node_tests import NodeTest, node_tests, session_of
from weir.server.errors import ServerError
from weir.server.runtime.session import RunStop, Session

Array = NDArray[Any]

DONE = "done"
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


def cases(start: int) -> Iterator[tuple[int, NodeTest]]:
    """The models with inputs, from a position on, with their positions.

    A model that is too new for ONNX Runtime gets an older operator set.
    """
    for position, case in enumerate(node_tests()):
        # An expanded function is made of operators that have tests of their own.
        is_wanted = case.inputs and "_expanded" not in case.name and "castlike" not in case.name
        if position < start or not is_wanted:
            continue
        runnable = next(filter(session_of, _versions(case)), None)
        if runnable is not None:
            yield position, runnable


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


def main(seed: int, trials: int, start: int) -> None:
    """Run every model from a position on, in all forms."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Casts of floats that no smaller type holds, in the tests themselves.
    np.seterr(all="ignore")
    for position, case in cases(start):
        for form in FORMS:
            _say([position, case.name, form, -1])
            session = loaded(case, form)
            for trial in range(trials if session else 0):
                _say([position, case.name, form, trial])
                run(session, arguments(case, form, seed, trial))
    _say([0, DONE, "", 0])


def _say(what: list[object]) -> None:
    """Write a line at once: the next run may be the last."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def run(session: Session | None, inputs: Mapping[str, Array]) -> None:
    """Run a model as the server does: errors are answers."""
    assert session is not None
    stop = RunStop()
    timer = threading.Timer(STOP_S, stop.set) if session.may_not_end else None
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
