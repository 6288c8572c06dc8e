import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.helpers import onnx_models, pairs, profiled_graphs
from tests.unit.weir.cli.shell import Weir
from weir.bundle import golden, writer
from weir.bundle.contract import Batching, Contract, Tolerance
from weir.bundle.golden import Golden
from weir.bundle.graph_nodes import Graph
from weir.cli import profile_report
from weir.profile.graph_profile import GraphProfile, ProfiledNode, Run

CONTRACT = Contract(
    task="other",
    architecture="made up",
    batching=Batching(max_rows=7),
    tolerance=Tolerance(absolute=1e-5, relative=1e-5),
)


def write(models: Path, model: bytes, x: np.ndarray, contract: Contract = CONTRACT) -> Path:
    """A bundle with golden inputs; its golden outputs are none, as nothing here reads them."""
    recorded = golden.encode(Golden({"x": x}, {}))
    files = {"model.onnx": model, golden.FILE_NAME: recorded}
    return writer.write(files, contract, models, "made-up", None)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    x = np.arange(2 * 64 * 64, dtype=np.uint8).reshape(2, 64, 64, 1)
    return write(tmp_path, profiled_graphs.channels_last(), x)


def test_a_bundle_is_profiled_at_one_row_and_at_its_largest_batch(
    weir: Weir, pictures: Path
) -> None:
    done = weir("inspect", pictures, "--profile", "--json")

    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)["graphs"]["model"]
    assert [batch["rows"] for batch in report["batches"]] == [1, 7]
    assert [node["operator"] for node in report["nodes"]] == ["Cast", "Sub", "Div", "Transpose"]
    assert all(len(node["us"]) == 2 for node in report["nodes"])


def test_what_is_avoidable_is_shown_with_its_fix(weir: Weir, pictures: Path) -> None:
    done = weir("inspect", pictures, "--profile")

    assert (done.code, done.err) == (0, "")
    # ONNX Runtime takes 30 times as long for them as with the channels first.
    assert "channels-last broadcast" in done.out
    assert "Transpose to [N, C, H, W] first" in done.out


def test_a_clean_graph_has_nothing_avoidable(weir: Weir, tmp_path: Path) -> None:
    path = write(tmp_path, profiled_graphs.clean(), np.ones((2, 32), np.float32))

    done = weir("inspect", path, "--profile")

    assert done.code == 0
    assert "avoidable: nothing was found" in done.out
    assert "FusedGemm" in done.out


def test_each_graph_of_an_encoder_decoder_is_profiled(weir: Weir, tmp_path: Path) -> None:
    files = {
        "encoder.onnx": pairs.encoder(),
        "decoder.onnx": pairs.decoder(),
        golden.file_of("encoder"): golden.encode(pairs.ENCODER_GOLDEN),
        golden.file_of("decoder"): golden.encode(pairs.DECODER_GOLDEN),
    }
    path = writer.write(files, pairs.CONTRACT, tmp_path, "pair", None)

    done = weir("inspect", path, "--profile", "--json")

    graphs = json.loads(done.out)["graphs"]
    assert list(graphs) == ["encoder", "decoder"]
    assert all(graph["batches"][-1]["rows"] == 4 for graph in graphs.values())


@pytest.mark.parametrize(
    ("model", "rows"),
    [(onnx_models.affine(), [1, 32]), (onnx_models.affine("width"), [1, 32])],
    ids=["fixed", "free"],
)
def test_a_plain_model_is_profiled_on_generated_rows(
    weir: Weir, tmp_path: Path, model: bytes, rows: list[int]
) -> None:
    file = tmp_path / "any.onnx"
    file.write_bytes(model)

    done = weir("inspect", file, "--profile", "--json")

    assert (done.code, done.err) == (0, "")
    (graph,) = json.loads(done.out)["graphs"].values()
    assert [batch["rows"] for batch in graph["batches"]] == rows


@pytest.mark.parametrize(
    "model",
    [onnx_models.detector(), profiled_graphs.graph("g (float x) => (float y) { y = Sin(x) }")],
    ids=["detector", "scalar"],
)
def test_a_plain_model_without_a_batch_axis_is_profiled_by_request(
    weir: Weir, tmp_path: Path, model: bytes
) -> None:
    file = tmp_path / "any.onnx"
    file.write_bytes(model)

    done = weir("inspect", file, "--profile", "--json")

    assert (done.code, done.err) == (0, "")
    (graph,) = json.loads(done.out)["graphs"].values()
    assert [batch["rows"] for batch in graph["batches"]] == [1]


def test_a_bundle_for_cuda_is_not_profiled_on_the_cpu(weir: Weir, tmp_path: Path) -> None:
    contract = CONTRACT.model_copy(update={"precision": "fp16", "providers": ["cuda"]})
    path = write(tmp_path, profiled_graphs.clean(), np.ones((2, 32), np.float32), contract)

    done = weir("inspect", path, "--profile")

    assert done.code == 1
    assert "cannot be profiled: expected a bundle for the CPU, got providers cuda" in done.err


def test_a_bundle_without_golden_inputs_is_not_profiled(weir: Weir, tmp_path: Path) -> None:
    path = writer.write({"model.onnx": profiled_graphs.clean()}, CONTRACT, tmp_path, "bare", None)

    done = weir("inspect", path, "--profile")

    assert done.code == 1
    assert "model: expected golden inputs, got none" in done.err


def test_json_is_for_the_profile(weir: Weir, pictures: Path) -> None:
    done = weir("inspect", pictures, "--json")

    assert done.code == 2
    assert "--json: expected with --profile" in done.err


def test_operators_below_a_hundredth_of_a_run_share_a_line() -> None:
    operators = ("Conv", "Relu", "Add", "Add", "Neg")
    profile = GraphProfile(
        nodes=[ProfiledNode(f"n{at}", each, "", None) for at, each in enumerate(operators)],
        constants={},
        outputs=frozenset(),
        runs=[Run(1, 1000.0, [900.0, 50.0, 3.0, 2.0, 4.0], {})],
        written=Graph([]),
    )
    console = Console(file=io.StringIO(), width=80)

    profile_report.show(console, "made up", profile, [])

    assert isinstance(console.file, io.StringIO)
    table = console.file.getvalue().split("operator ")[1].splitlines()[1:5]
    assert [line.split() for line in table] == [
        ["Conv", "1", "900.0", "90.0%", "\u2588" * 9],
        ["Relu", "1", "50.0", "5.0%"],
        ["2", "others", "3", "9.0", "0.9%"],
        ["outside", "operators", "41.0", "4.1%"],
    ]
