from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import pairs, profiled_graphs
from weir.bundle import golden, reader, writer
from weir.bundle.contract import Batching, Contract, Tolerance
from weir.bundle.golden import Golden
from weir.bundle.sequences import PaddedAxis
from weir.profile.bundle_profile import advice, profile_bundle

CONTRACT = Contract(
    task="other",
    architecture="made up",
    tolerance=Tolerance(absolute=1e-5, relative=1e-5),
)
PICTURES = np.arange(2 * 64 * 64, dtype=np.uint8).reshape(2, 64, 64, 1)


def write(
    models: Path, model: bytes, x: NDArray[Any], contract: Contract = CONTRACT, **files: bytes
) -> Path:
    recorded = golden.encode(Golden({"x": x}, {}))
    own = {"model.onnx": model, golden.FILE_NAME: recorded, **files}
    return writer.write(own, contract, models, "made-up", None)


def test_advice_names_the_share_of_a_run_the_nodes_and_the_fix(tmp_path: Path) -> None:
    (line,) = advice(write(tmp_path, profiled_graphs.channels_last(), PICTURES))

    # ONNX Runtime takes 30 times as long for them as with the channels first.
    assert line.startswith("avoidable: ")
    assert "of a run of 32 rows, by channels-last broadcast (2 nodes: Sub, Div)." in line
    assert "Transpose to [N, C, H, W] first" in line


def test_there_is_no_advice_for_a_clean_graph(tmp_path: Path) -> None:
    assert advice(write(tmp_path, profiled_graphs.clean(), np.ones((2, 32), np.float32))) == []


def test_there_is_no_advice_for_what_cannot_be_profiled(tmp_path: Path) -> None:
    refused = write(tmp_path, profiled_graphs.clean(), np.ones((2, 33), np.float32))

    assert advice(refused) == []
    assert advice(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("batching", "sizes"),
    [
        (Batching(max_rows=64), [1, 32]),
        (Batching(max_rows=7), [1, 7]),
        (Batching(max_rows=1), [1]),
        (Batching(max_rows=32, max_tokens=100), [1, 12]),
    ],
    ids=["most", "contract", "one", "tokens"],
)
def test_batches_have_one_row_and_as_many_as_the_contract_allows(
    tmp_path: Path, batching: Batching, sizes: list[int]
) -> None:
    model = profiled_graphs.graph(
        "g (int64[batch, time] x) => (int64[batch, time] y) { y = Abs(x) }"
    )
    axis = PaddedAxis(maximum=16, padding={"x": 0})
    contract = CONTRACT.model_copy(update={"batching": batching, "padded_axes": {"time": axis}})
    path = write(tmp_path, model, np.ones((2, 8), np.int64), contract)

    found = profile_bundle(reader.read(path), seconds=0.01)["model"]

    assert [run.rows for run in found.runs] == sizes


def test_a_model_without_a_batch_axis_runs_its_recorded_request(tmp_path: Path) -> None:
    contract = CONTRACT.model_copy(update={"batch_axis": None})
    path = write(tmp_path, profiled_graphs.clean(), np.ones((5, 32), np.float32), contract)

    found = profile_bundle(reader.read(path), seconds=0.01)["model"]

    assert [run.rows for run in found.runs] == [1]
    assert found.runs[0].tensors[b"x"].shape == (5, 32)


def test_both_graphs_of_a_pair_are_profiled(tmp_path: Path) -> None:
    files = {
        "encoder.onnx": pairs.encoder(),
        "decoder.onnx": pairs.decoder(),
        golden.file_of("encoder"): golden.encode(pairs.ENCODER_GOLDEN),
        golden.file_of("decoder"): golden.encode(pairs.DECODER_GOLDEN),
    }
    path = writer.write(files, pairs.CONTRACT, tmp_path, "pair", None)

    assert list(profile_bundle(reader.read(path), seconds=0.01)) == ["encoder", "decoder"]
