import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.helpers import profiled_graphs
from weir.bundle import graph_nodes
from weir.bundle.external_data import ResolvedGraph
from weir.profile import avoidable, graph_profile, replacements
from weir.profile.avoidable import Finding
from weir.profile.graph_profile import GraphProfile
from weir.profile.onnx_writer import NewNode, write_model
from weir.profile.replacements import Kind

Array = NDArray[Any]
Ran = list[tuple[Sequence[NewNode], Mapping[str, Array], Mapping[str, Array]]]


def profiled(model: bytes, rows: int = 4) -> GraphProfile:
    """The profile of a graph, as if each of its nodes took as long as any other."""
    (x,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()
    dtype = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}.get(x.type, np.float32)
    inputs = {"x": np.ones((rows, *x.shape[1:]), dtype)}
    found = graph_profile.profile(ResolvedGraph(model), lambda _: inputs, (rows,), seconds=0.001)
    even = [1.0] * len(found.nodes)
    runs = [dataclasses.replace(run, run_us=sum(even), node_us=even) for run in found.runs]
    return dataclasses.replace(found, runs=runs)


def find(profile: GraphProfile, ran: Ran | None = None, *, after_us: float = 2.0) -> list[Finding]:
    """What is found if nodes take 8 µs and their replacements less, all with a call of 1 µs."""

    def time_us(
        nodes: Sequence[NewNode],
        inputs: Mapping[str, Array],
        constants: Mapping[str, Array],
        *,
        is_optimised: bool = True,
    ) -> float:
        if ran is not None:
            ran.append((nodes, inputs, constants))
        if nodes[0].operator == "Neg":
            return 1.0
        return after_us if is_optimised else 9.0

    return avoidable.find(profile, seconds=60, time_us=time_us)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            profiled_graphs.channels_last(3),
            {replacements.BROADCAST: ["Sub", "Div"], replacements.WIDE_TRANSPOSE: ["Transpose"]},
        ),
        (profiled_graphs.channels_first(3), {}),
        (profiled_graphs.transposes(), {replacements.TRANSPOSE_CHAIN: ["Transpose", "Transpose"]}),
        (profiled_graphs.casts(), {replacements.CAST: ["Cast", "Cast"]}),
        (profiled_graphs.matmul_and_add(), {replacements.GEMM: ["MatMul", "Add"]}),
        (profiled_graphs.projections(), {replacements.PROJECTIONS: ["MatMul", "MatMul", "MatMul"]}),
        (profiled_graphs.embedding(), {replacements.TABLE: ["Gather", "Gemm"]}),
        (profiled_graphs.added_embedding(), {}),
        (profiled_graphs.clean(), {}),
    ],
    ids=[
        "channels last",
        "channels first",
        "transposes",
        "casts",
        "gemm",
        "projections",
        "embedding",
        "added embedding",
        "clean",
    ],
)
def test_each_kind_is_found_where_it_is(model: bytes, expected: dict[Kind, list[str]]) -> None:
    profile = profiled(model)

    found = find(profile)

    assert {
        each.kind: [profile.nodes[place].operator for place in each.nodes] for each in found
    } == expected


def test_what_the_replacement_saves_is_counted() -> None:
    (found,) = find(profiled(profiled_graphs.embedding()), after_us=3.0)

    # 8 µs become 2: three quarters of two nodes of 1 µs.
    assert found.us == [2.0]
    assert found.avoidable_us == [1.5]


def test_a_replacement_that_saves_less_than_a_fifth_is_no_finding() -> None:
    assert find(profiled(profiled_graphs.embedding()), after_us=8.0) == []


def test_nodes_below_a_two_hundredth_of_a_run_are_not_looked_at() -> None:
    profile = profiled(profiled_graphs.embedding())
    (run,) = profile.runs
    slow = dataclasses.replace(profile, runs=[dataclasses.replace(run, run_us=1000.0)])

    assert find(slow) == []


def test_casts_and_transposes_of_inputs_and_outputs_are_not_avoidable() -> None:
    model = profiled_graphs.graph(
        """g (float[batch, 4, 8] x) => (double[batch, 8, 4] y) {
            first = Transpose<perm = [0, 2, 1]>(x)
            active = Tanh(first)
            y = Cast<to = 11>(active)
        }"""
    )

    assert find(profiled(model)) == []


def test_transposes_that_another_node_reads_are_not_joined() -> None:
    model = profiled_graphs.graph(
        """g (float[batch, 4, 8] x) => (float[batch, 8, 4] y, float[4, 8, batch] z) {
            a = Transpose<perm = [0, 2, 1]>(x)
            y = Tanh(a)
            z = Transpose<perm = [2, 1, 0]>(y)
        }"""
    )

    assert find(profiled(model)) == []


def run(
    nodes: Sequence[NewNode], inputs: Mapping[str, Array], constants: Mapping[str, Array]
) -> Array:
    random = np.random.default_rng(1)
    given = {
        name: random.standard_normal(array.shape, np.float32) for name, array in inputs.items()
    }
    model = write_model(nodes, given, constants, [nodes[-1].outputs[-1]])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, given)[0])


@pytest.mark.parametrize("names", [{}, {"less": "less", "y": "normal"}], ids=["nameless", "named"])
def test_constants_that_onnx_runtime_has_moved_a_transpose_behind_are_to_be_repeated(
    names: dict[str, str],
) -> None:
    moved = profiled(profiled_graphs.channels_last(3))
    written = onnx.load_from_string(profiled_graphs.channels_first(3))
    optimised = [
        dataclasses.replace(
            each,
            node=each.node._replace(
                name={"Sub": "less", "Div": "normal"}.get(each.operator, "") if names else ""
            ),
        )
        for each in moved.nodes
        if each.node is not None
    ]
    for node in written.graph.node:
        node.name = names.get(node.output[0], "")
    graph = graph_nodes.read(written.SerializeToString()).graph

    found = find(dataclasses.replace(moved, nodes=optimised, written=graph))
    assert [each.kind for each in found] == [replacements.NARROW_CONSTANT]
    assert [moved.nodes[place].operator for place in found[0].nodes] == ["Sub", "Div"]
    assert replacements.NARROW_CONSTANT not in [each.kind for each in find(moved)]


@pytest.mark.parametrize(
    "model", [profiled_graphs.transposes(), profiled_graphs.matmul_and_add()], ids=["chain", "gemm"]
)
def test_the_replacement_computes_the_same_numbers(model: bytes) -> None:
    ran: Ran = []

    find(profiled(model), ran)

    _call, before, after = ran
    assert np.allclose(run(*before).ravel(), run(*after).ravel(), atol=1e-5)


def test_transposes_that_cancel_need_no_replacement() -> None:
    model = profiled_graphs.transposes("1, 0, 2", "batch, 12, 32")
    ran: Ran = []

    (found,) = find(profiled(model), ran)

    assert found.avoidable_us == found.us
    assert len(ran) == 2
