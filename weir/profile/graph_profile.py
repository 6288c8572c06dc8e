"""Profile of one graph: the time of each node that ONNX Runtime runs, by its own profiler.

Rules:
- The nodes are those of the optimised graph: after constant folding, fusion and blocked layouts.
- One session first runs with the profiler, then without it. The second gives the time of a run, the
  first its parts.
- The profiler adds 1 to 3 microseconds to each node, as much as a small node takes. The same time
  is subtracted from each node, so that they add up to the run without the profiler.
- The slower half of the runs is left out: other programs slow runs down.
- The graph runs on one thread of the CPU.
- No weight is written: ONNX Runtime saves the optimised graph with its weights in the null device.
"""

import json
import math
import os
import re
import tempfile
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from weir.bundle import graph_nodes
from weir.bundle.external_data import ExternalTensor, ResolvedGraph
from weir.bundle.graph_nodes import Constant, Graph, Node
from weir.profile.layers import layers_of
from weir.profile.onnx_writer import NewNode, write_model

Array = NDArray[Any]
Inputs = Mapping[str, Array]
Call = Callable[[ort.RunOptions | None], object]

# Records for each batch size; 4,000 are read in 0.1 s.
_MOST_EVENTS = 4000
_WARM_UPS, _LEAST_RUNS, _MOST_RUNS = 2, 3, 100
# A loop of a graph may never end.
_MOST_RUN_S = 60.0
_MOST_SAVED_BYTES = 1024
_MOST_PROFILER_US = 4.0
_OPTIMISED = "optimised.onnx"
_RECORDED = "_kernel_time"
_PROVIDERS = ["CPUExecutionProvider"]
_BF16, _ONNX_BF16 = "tensor(bfloat16)", 16
_WITH_SUBGRAPHS = ("If", "Loop", "Scan")
# The names that ONNX Runtime has for element types, by the kind and size of numpy's.
_TYPES = {
    "f4": "float",
    "f2": "float16",
    "f8": "double",
    "u1": "uint8",
    "i4": "int32",
    "i8": "int64",
}


class ProfileError(Exception):
    """A graph cannot be profiled: ONNX Runtime refuses it or its inputs."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """The element type, as ONNX Runtime calls it, and the shape of a tensor in a run."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProfiledNode:
    """A node of the optimised graph.

    Attributes:
        layer: the module that it belongs to; empty if no name says it.
        node: None for a node of a subgraph.
    """

    name: str
    operator: str
    layer: str
    node: Node | None


@dataclass(frozen=True, slots=True)
class Run:
    """The runs of one batch size.

    Attributes:
        run_us: time of a run without the profiler.
        node_us: time of each node, in the order of `GraphProfile.nodes`.
        tensors: the graph's inputs and each node's outputs, by name.
    """

    rows: int
    run_us: float
    node_us: Sequence[float]
    tensors: Mapping[bytes, Tensor]


@dataclass(frozen=True, slots=True)
class GraphProfile:
    """A profiled graph.

    Attributes:
        nodes: in the graph's order; those of subgraphs last.
        constants: the initializers of the optimised graph.
        outputs: names of the graph's outputs.
        runs: by batch size, the smallest first.
        written: the graph before ONNX Runtime's optimisation.
    """

    nodes: Sequence[ProfiledNode]
    constants: Mapping[bytes, Constant]
    outputs: frozenset[bytes]
    runs: Sequence[Run]
    written: Graph


def profile(
    graph: ResolvedGraph,
    inputs_of: Callable[[int], Inputs],
    batch_sizes: Sequence[int],
    *,
    seconds: float,
    most_run_s: float = _MOST_RUN_S,
) -> GraphProfile:
    """Profile a graph.

    Args:
        inputs_of: the inputs of a batch of so many rows.
        batch_sizes: ascending. A size whose run would take longer than `seconds` is halved until it
            does not.
        seconds: the time of the runs of a batch size, about; there are three runs at least.
        most_run_s: of one run; a longer one is an error.

    Raises:
        ProfileError: ONNX Runtime refuses the graph or the inputs, or a run does not end.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _profile(
                graph, inputs_of, batch_sizes, seconds, Path(folder), most_run_s=most_run_s
            )
        except ProfileError:
            raise
        except Exception as error:  # the runtime raises many unrelated classes
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ProfileError(reason) from error


def small_graph_us(
    nodes: Sequence[NewNode],
    inputs: Inputs,
    constants: Mapping[str, Array],
    *,
    is_optimised: bool = True,
    seconds: float = 0.01,
) -> float:
    """The time of a run of a few nodes, with that of the call."""
    read = {name for node in nodes for name in node.inputs}
    outputs = [name for node in nodes for name in node.outputs if name not in read]
    model = write_model(nodes, inputs, constants, outputs)
    options = _options(is_optimised=is_optimised)
    session = ort.InferenceSession(model, options, providers=_PROVIDERS, enable_fallback=0)
    # Outputs stay in ONNX Runtime's memory: a copy into an array would be timed too.
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name in outputs:
        binding.bind_output(name)
    times: list[float] = []
    ends_s = time.perf_counter() + seconds
    while len(times) < _WARM_UPS + _LEAST_RUNS or time.perf_counter() < ends_s:
        started_s = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - started_s)
    return 1e6 * _fastest_mean(times[_WARM_UPS:])


def _profile(
    graph: ResolvedGraph,
    inputs_of: Callable[[int], Inputs],
    batch_sizes: Sequence[int],
    seconds: float,
    folder: Path,
    *,
    most_run_s: float,
) -> GraphProfile:
    session = _session(graph, folder)
    optimised = graph_nodes.read((folder / _OPTIMISED).read_bytes()).graph
    nodes = list(optimised.nodes())
    batches = _run_profiled(
        session, inputs_of, batch_sizes, seconds, len(nodes), most_run_s=most_run_s
    )
    recorded = _recorded_runs(Path(session.end_profiling()))
    call_us = small_graph_us([NewNode("Neg", ["x"], ["y"])], {"x": np.ones(1, np.float32)}, {})
    names = _event_names(nodes, recorded[0])
    known = set(names)
    names += list(dict.fromkeys(e.name for run in recorded for e in run if e.name not in known))
    runs, start = [], 0
    for batch in batches:
        # The first runs of a size take memory.
        start += _WARM_UPS
        own = recorded[start : start + len(batch.run_s)]
        start += len(batch.run_s)
        plain_s = [_timed_s(batch.call) for _ in batch.run_s]
        # The profiler only adds time: where it seems to save some, other programs took it.
        run_us = 1e6 * min(_fastest_mean(plain_s), _fastest_mean(batch.run_s))
        runs.append(
            Run(
                rows=batch.rows,
                run_us=run_us,
                node_us=_node_us(own, names, max(0.0, run_us - call_us)),
                tensors=_tensors(batch.inputs, nodes, names, own[0]),
            )
        )
    operators = {event.name: event.operator for run in recorded for event in run}
    written = graph_nodes.read(graph.model).graph
    layers = layers_of(written, optimised)
    return GraphProfile(
        nodes=[
            ProfiledNode(name, operators.get(name, node.type if node else ""), layer or "", node)
            for name, node, layer in zip_longest(names, nodes, layers)
        ],
        constants={
            name: graph_nodes.constant(message)
            for name, message in optimised.initializer_messages()
        },
        outputs=frozenset(optimised.outputs()),
        runs=runs,
        written=written,
    )


class _Batch(NamedTuple):
    """A batch, and the times of its runs with the profiler, the first two left out."""

    rows: int
    inputs: Inputs
    call: Call
    run_s: Sequence[float]


class _Event(NamedTuple):
    """A node's run: its name there, its time without that of its subgraphs, its outputs."""

    name: str
    operator: str
    us: float
    outputs: Sequence[Tensor]


def _options(*, is_optimised: bool = True) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not is_optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _session(graph: ResolvedGraph, folder: Path) -> ort.InferenceSession:
    """A session with the profiler; the optimised graph is saved in the folder, without weights."""
    weights = folder / "weights"
    if os.name == "posix":
        weights.symlink_to(os.devnull)
    options = _options()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / _OPTIMISED)
    saved = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{saved}_file_name", weights.name)
    options.add_session_config_entry(f"{saved}_min_size_in_bytes", str(_MOST_SAVED_BYTES))
    if graph.external:
        options.add_external_initializers(
            [tensor.name for tensor in graph.external], [_value(each) for each in graph.external]
        )
    return ort.InferenceSession(graph.model, options, providers=_PROVIDERS, enable_fallback=0)


def _value(tensor: ExternalTensor) -> ort.OrtValue:
    """The tensor as a value of ONNX Runtime; its elements have 8, 16, 32 or 64 bits."""
    bits = 8 * len(tensor.data) // math.prod(tensor.shape)
    array = np.frombuffer(tensor.data, f"<u{bits // 8}").reshape(tensor.shape)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, tensor.data_type)


def _call(session: ort.InferenceSession, inputs: Inputs) -> Call:
    """The call that runs the graph on these inputs; the bits of BF16 are given as uint16."""
    types = {each.name: each.type for each in session.get_inputs()}
    outputs = {each.name: each.type for each in session.get_outputs()}
    if _BF16 not in {*types.values(), *outputs.values()}:
        return lambda options: session.run(None, inputs, options)
    # Numpy has no BF16, so no array of an output can be made.
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _ONNX_BF16)
        if types[name] == _BF16
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in inputs.items()
    }
    return lambda options: session.run_with_ort_values(list(outputs), values, options)


def _timed_s(call: Call) -> float:
    started_s = time.perf_counter()
    call(None)
    return time.perf_counter() - started_s


def _warm_up_s(call: Call, most_s: float) -> float:
    """The time of a run that is stopped if it takes too long."""
    options = ort.RunOptions()
    timer = threading.Timer(most_s, setattr, (options, "terminate", True))
    timer.start()
    started_s = time.perf_counter()
    try:
        call(options)
        return time.perf_counter() - started_s
    except Exception as error:  # the runtime raises many unrelated classes
        if options.terminate:
            raise ProfileError(f"a run: expected to end within {most_s:g} s") from error
        raise
    finally:
        timer.cancel()


def _run_profiled(
    session: ort.InferenceSession,
    inputs_of: Callable[[int], Inputs],
    batch_sizes: Sequence[int],
    seconds: float,
    nodes: int,
    *,
    most_run_s: float,
) -> list[_Batch]:
    """Run the batches; a batch that takes too long is left out, or has fewer rows."""
    most_runs = min(_MOST_RUNS, _MOST_EVENTS // max(1, nodes))
    batches: list[_Batch] = []
    row_s = 0.0
    for size in batch_sizes:
        rows = size
        while batches and rows > batches[-1].rows and row_s * rows > seconds:
            rows //= 2
        if batches and rows <= batches[-1].rows:
            break
        inputs = inputs_of(rows)
        call = _call(session, inputs)
        run_s = min(_warm_up_s(call, most_run_s) for _ in range(_WARM_UPS))
        row_s = run_s / rows
        # Half of the time is for runs without the profiler.
        runs = max(_LEAST_RUNS, min(most_runs, int(seconds / 2 / run_s)))
        batches.append(_Batch(rows, inputs, call, [_timed_s(call) for _ in range(runs)]))
    return batches


def _recorded_runs(file: Path) -> list[list[_Event]]:
    """The events of each run, in the order in which the nodes ran."""
    events = json.loads(file.read_bytes())
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run")
    own = sorted(
        (e for e in events if e["cat"] == "Node" and e["name"].endswith(_RECORDED)),
        key=lambda event: (event["ts"], -event["dur"]),
    )
    starts = [start for start, _ in runs]
    found: list[list[dict[str, Any]]] = [[] for _ in runs]
    for event in own:
        found[bisect_right(starts, event["ts"]) - 1].append(event)
    return [_without_subgraphs(run) for run in found]


def _without_subgraphs(events: Sequence[dict[str, Any]]) -> list[_Event]:
    """The events with the time of events inside subtracted: those of an `If` or a `Loop`."""
    own = [float(event["dur"]) for event in events]
    open_events: list[int] = []
    for number, event in enumerate(events):
        while open_events:
            outer = events[open_events[-1]]
            if event["ts"] + event["dur"] <= outer["ts"] + outer["dur"] and (
                outer["args"]["op_name"] in _WITH_SUBGRAPHS
            ):
                own[open_events[-1]] -= event["dur"]
                break
            open_events.pop()
        open_events.append(number)
    return [
        _Event(
            event["name"].removesuffix(_RECORDED),
            event["args"]["op_name"],
            max(0.0, us),
            [
                Tensor(type_, tuple(shape))
                for tensor in event["args"]["output_type_shape"]
                for type_, shape in tensor.items()
            ],
        )
        for event, us in zip(events, own, strict=True)
    ]


def _event_names(nodes: Sequence[Node], run: Sequence[_Event]) -> list[str]:
    """The name that each node has in events; ONNX Runtime names a nameless one by its operator."""
    named = {node.name for node in nodes}
    others: dict[str, list[str]] = defaultdict(list)
    for event in run:
        if event.name not in named and re.fullmatch(
            rf"{re.escape(event.operator)}_\d+", event.name
        ):
            others[event.operator].append(event.name)
    unnamed = {operator: iter(names) for operator, names in others.items()}
    return [
        node.name or next(unnamed.get(node.type, iter(())), f"{node.type}?{place}")
        for place, node in enumerate(nodes)
    ]


def _node_us(runs: Sequence[Sequence[_Event]], names: Sequence[str], all_us: float) -> list[float]:
    """The mean time of each node in the faster half of its runs; the sum is at most `all_us`."""
    times: dict[str, list[float]] = {name: [0.0] * len(runs) for name in names}
    counts: Counter[str] = Counter()
    for number, run in enumerate(runs):
        for event in run:
            times[event.name][number] += event.us
            counts[event.name] += 1
    means = {name: _fastest_mean(each) for name, each in times.items()}
    own_us, step_us = 0.0, 0.05

    def reduced(name: str) -> float:
        return max(0.0, means[name] - own_us * counts[name] / len(runs))

    while own_us < _MOST_PROFILER_US and sum(map(reduced, names)) > all_us:
        own_us += step_us
    total_us = sum(map(reduced, names))
    scale = min(1.0, all_us / total_us) if total_us else 0.0
    return [scale * reduced(name) for name in names]


def _tensors(
    inputs: Inputs, nodes: Sequence[Node], names: Sequence[str], run: Sequence[_Event]
) -> dict[bytes, Tensor]:
    """The graph's inputs and the outputs of its nodes in a run."""
    tensors = {
        name.encode(): Tensor(_TYPES.get(array.dtype.str[1:], ""), array.shape)
        for name, array in inputs.items()
    }
    events = {event.name: event for event in run}
    for node, name in zip(nodes, names, strict=False):
        outputs = [output for output in node.outputs if output]
        found = events[name].outputs if name in events else ()
        if len(outputs) == len(found):
            tensors |= dict(zip(outputs, found, strict=True))
    return tensors


def _fastest_mean(times: Sequence[float]) -> float:
    """The mean of the smaller half."""
    kept = sorted(times)[: (len(times) + 1) // 2]
    return sum(kept) / len(kept)
