import numpy as np
import pytest

from tests.helpers import profiled_graphs
from weir.bundle.external_data import ResolvedGraph
from weir.profile.graph_profile import GraphProfile, Inputs, ProfileError, Tensor, profile

# A branch, and a body that runs three times, with nodes without names.
SUBGRAPHS = """g (float[batch, 4] x) => (float[batch, 4] y) {
    trips = Constant<value = int64 {3}>()
    go = Constant<value = bool {1}>()
    y = Loop<body = b (int64 i, bool c, float[batch, 4] a) => (bool d, float[batch, 4] e) {
        d = Identity(c)
        e = Sin(a)
    }>(trips, go, x)
}"""


def rows_of(count: int) -> Inputs:
    return {"x": np.ones((count, 32), np.float32)}


def clean(*sizes: int) -> GraphProfile:
    return profile(ResolvedGraph(profiled_graphs.clean()), rows_of, sizes, seconds=0.01)


def test_nodes_are_those_that_run_after_optimisation() -> None:
    found = clean(1, 8)

    assert [node.operator for node in found.nodes] == ["FusedGemm", "Gemm"]
    assert [run.rows for run in found.runs] == [1, 8]
    assert found.outputs == {b"y"}
    assert found.constants[b"w"].shape == [32, 64]


def test_the_times_of_nodes_are_within_the_run() -> None:
    for run in clean(1, 8).runs:
        assert len(run.node_us) == 2
        assert min(run.node_us) >= 0.0
        assert sum(run.node_us) <= run.run_us


def test_tensors_have_the_shapes_of_the_run() -> None:
    found = clean(1, 8)

    assert found.runs[0].tensors[b"y"] == Tensor("float", (1, 8))
    assert found.runs[1].tensors[b"y"] == Tensor("float", (8, 8))
    assert found.runs[1].tensors[b"x"] == Tensor("float", (8, 32))


def test_a_batch_that_takes_too_long_has_fewer_rows() -> None:
    found = profile(ResolvedGraph(profiled_graphs.clean()), rows_of, (1, 1 << 20), seconds=0.001)

    assert 1 <= found.runs[-1].rows < 1 << 20


def test_the_time_of_a_loop_is_counted_once() -> None:
    graph = ResolvedGraph(profiled_graphs.graph(SUBGRAPHS))

    found = profile(graph, lambda rows: {"x": np.ones((rows, 4), np.float32)}, (2,), seconds=0.01)

    operators = [node.operator for node in found.nodes]
    assert operators[0] == "Loop"
    assert operators.count("Sin") == 1
    assert [node.layer for node in found.nodes] == [""] * len(operators)
    (run,) = found.runs
    assert sum(run.node_us) <= run.run_us


def test_a_run_without_an_end_is_stopped() -> None:
    graph = ResolvedGraph(profiled_graphs.endless())
    inputs = {"x": np.ones((1, 4), np.float32)}

    with pytest.raises(ProfileError, match=r"^a run: expected to end within 0\.1 s$"):
        profile(graph, lambda _: inputs, (1,), seconds=0.01, most_run_s=0.1)


def test_bits_of_bf16_are_run_as_such() -> None:
    graph = ResolvedGraph(
        profiled_graphs.graph("""g (bfloat16[batch, 4] x) => (bfloat16[batch, 4] y) {
            wide = Cast<to = 1>(x)
            sine = Sin(wide)
            y = Cast<to = 16>(sine)
        }""")
    )

    found = profile(graph, lambda rows: {"x": np.ones((rows, 4), np.uint16)}, (1, 2), seconds=0.01)

    assert [node.operator for node in found.nodes] == ["Cast", "Sin", "Cast"]


def test_nodes_without_names_keep_their_order() -> None:
    model = profiled_graphs.graph(
        "g (float[batch, 4] x) => (float[batch, 4] y) { a = Sin(x) b = Cos(a) y = Sin(b) }"
    )

    found = profile(
        ResolvedGraph(model), lambda _: {"x": np.ones((1, 4), np.float32)}, (1,), seconds=0.001
    )

    assert [node.operator for node in found.nodes] == ["Sin", "Cos", "Sin"]
    assert len({node.name for node in found.nodes}) == 3


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (b"no graph", {"x": np.ones((1, 32), np.float32)}),
        (profiled_graphs.clean(), {"x": np.ones((1, 33), np.float32)}),
    ],
    ids=["graph", "inputs"],
)
def test_what_onnx_runtime_refuses_is_one_error(model: bytes, inputs: Inputs) -> None:
    with pytest.raises(ProfileError):
        profile(ResolvedGraph(model), lambda _: inputs, (1,), seconds=0.01)
