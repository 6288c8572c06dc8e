import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.helpers import onnx_models, pairs
from tests.unit.weir.cli.shell import Weir
from weir.bundle import writer
from weir.bundle.contract import (
    Batching,
    Contract,
    Parity,
    Preprocessing,
    Provenance,
    Series,
    Sharing,
    Tolerance,
)

CONTRACT = Contract(
    task="other",
    architecture="affine",
    batching=Batching(max_rows=7),
    tolerance=Tolerance(absolute=1e-5, relative=1e-5),
    parity=Parity(
        max_absolute=2e-7, max_relative=0.0, rows=99, batch_sizes=[1, 8], examples="made up"
    ),
    training=Provenance(
        recipe="none", data="digits", data_checksum="c", seed=4, metrics={"test_accuracy": 0.5}
    ),
)


def dense() -> bytes:
    """y = x W of 3 to 4 numbers."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        dense (float[batch, 3] x) => (float[batch, 4] y) { y = MatMul(x, w) }"""
    )
    weights = np.zeros((3, 4), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model.SerializeToString()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    writer.write({"model.onnx": dense()}, CONTRACT, tmp_path, "dense", None)
    return tmp_path


def test_a_bundle_is_shown_by_directory_and_by_name(weir: Weir, models: Path) -> None:
    by_version = weir("inspect", models / "dense" / "1")
    by_directory = weir("inspect", models / "dense")
    by_name = weir("inspect", "dense", "--models", models)

    assert by_version.code == 0
    assert by_version.out == by_directory.out == by_name.out
    for text in ("affine", "at most 7 rows", "2.00e-07", "test_accuracy 0.5", "model.onnx"):
        assert text in by_name.out


@pytest.mark.parametrize(
    ("resize", "short_side", "shown"),
    [
        ("stretch", None, "stretched to 224 x 200 x 3"),
        ("short-side", 256, "short side to 256, cut to the middle 224 x 200 x 3"),
    ],
)
def test_what_becomes_of_pictures_is_shown(
    weir: Weir, tmp_path: Path, resize: str, short_side: int | None, shown: str
) -> None:
    preprocessing = Preprocessing.model_validate(
        {
            "input": "x",
            "height": 224,
            "width": 200,
            "channels": 3,
            "resize": resize,
            "short_side": short_side,
            "output": "y",
        }
    )
    contract = CONTRACT.model_copy(update={"preprocessing": preprocessing})
    writer.write({"model.onnx": dense()}, contract, tmp_path, "pictures", None)

    assert shown in weir("inspect", tmp_path / "pictures").out


@pytest.mark.parametrize(
    ("graph", "config", "shown"),
    [
        pytest.param(
            onnx_models.with_first_axes(onnx_models.affine(), "s77", "s77"),
            None,
            "batched: the batch axis was proved at load",
            id="proved",
        ),
        pytest.param(
            onnx_models.detector(),
            None,
            "not batched: shapes depend on values, by operators 'NonZero'",
            id="detector",
        ),
        pytest.param(
            onnx_models.affine(),
            "max_batch_size: 0",
            "not batched: max_batch_size of config.pbtxt is 0",
            id="config",
        ),
        pytest.param(
            onnx_models.affine(),
            "max_batch_size: 8 input { name: 'z' }",
            "a server does not load it: config.pbtxt: input: expected the graph's x, got z",
            id="refused",
        ),
    ],
)
def test_a_plain_model_is_shown_with_the_proof_of_its_batch_axis(
    weir: Weir, tmp_path: Path, graph: bytes, config: str | None, shown: str
) -> None:
    directory = onnx_models.write_plain(tmp_path, "plain", graph)
    if config is not None:
        (directory.parent / "config.pbtxt").write_text(config)

    by_version = weir("inspect", directory)

    assert (by_version.code, by_version.err) == (0, "")
    assert f"\n{shown}\n" in by_version.out
    by_file = weir("inspect", directory / "model.onnx")
    assert f"\n{shown}\n" in by_file.out


def test_weight_sharing_is_shown(weir: Weir, models: Path) -> None:
    done = weir("inspect", "dense", "--models", models)

    (row,) = (line for line in done.out.splitlines() if "MatMul" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["w", "MatMul", "4", "12", "12", "1x"]


def test_a_network_is_counted_as_it_was_trained(weir: Weir, tmp_path: Path) -> None:
    contract = CONTRACT.model_copy(
        update={"sharing": Sharing(parameters=60_000, connections=340_908)}
    )
    writer.write({"model.onnx": dense()}, contract, tmp_path, "folded", None)

    done = weir("inspect", tmp_path / "folded")

    (row,) = (line for line in done.out.splitlines() if "as trained" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["as trained", "", "", "60,000", "340,908", "5.7x"]


def test_what_a_series_is_made_of_is_shown(weir: Weir, tmp_path: Path) -> None:
    series = Series(target="sales", exogenous=["price"], lags=36, horizon=12)
    contract = CONTRACT.model_copy(update={"task": "forecasting", "series": series})
    writer.write({"model.onnx": dense()}, contract, tmp_path, "series", None)

    assert (
        "sales, 12 ahead of the last 36, beside price" in weir("inspect", tmp_path / "series").out
    )


def test_a_plain_model_is_shown_without_a_contract(weir: Weir, tmp_path: Path) -> None:
    onnx_models.write_plain(tmp_path, "affine", onnx_models.affine())

    done = weir("inspect", tmp_path / "affine")

    assert done.code == 0 and "plain model" in done.out and "batch x 4" in done.out


def test_tensors_that_are_not_served_or_not_needed_are_shown(weir: Weir, tmp_path: Path) -> None:
    onnx_models.write_plain(tmp_path, "classifier", onnx_models.classifier())
    onnx_models.write_plain(tmp_path, "any", onnx_models.without_shapes())
    onnx_models.write_plain(tmp_path, "scaled", onnx_models.scaled())

    classifier, free, scaled = (
        " ".join(weir("inspect", name, "--models", tmp_path).out.split())
        for name in ("classifier", "any", "scaled")
    )

    assert "probabilities │ seq(map(INT64, FLOAT)) │ not served" in classifier
    assert "export with zipmap=False" in classifier
    assert "x │ FLOAT │ any" in free and "zipmap" not in free
    assert "may be left out or sent: scale" in scaled


def test_a_broken_bundle_is_one_line(weir: Weir, models: Path) -> None:
    (models / "dense" / "1" / "model.onnx").write_bytes(b"changed")

    done = weir("inspect", models / "dense")

    assert done.code == 2 and "SHA-256" in done.err and len(done.err.splitlines()) == 1


def test_what_is_not_there_is_one_line(weir: Weir, tmp_path: Path) -> None:
    done = weir("inspect", "nothing.onnx", "--models", tmp_path)

    assert done.code == 2 and done.err.count("\n") == 1
    assert done.err.startswith("weir: nothing.onnx: expected a bundle, an ONNX file or")


def test_file_that_is_no_graph_is_one_line(
    weir: Weir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    monkeypatch.chdir(tmp_path)

    result = weir("inspect", tmp_path / "notes.txt")
    here = weir("inspect", "notes.txt")

    assert result.code == here.code == 2
    assert result.err.startswith(f"weir: {tmp_path}: notes.txt: expected an ONNX file, got ")
    assert here.err.startswith("weir: notes.txt: expected an ONNX file, got ")
    assert result.err.count("\n") == here.err.count("\n") == 1


def test_both_graphs_of_a_pair_are_shown_and_how_they_work_together(
    weir: Weir, tmp_path: Path
) -> None:
    assert pairs.CONTRACT.decoding is not None
    decoding = pairs.CONTRACT.decoding.model_copy(
        update={"steps_per_token": 1.5, "extra_steps": 10}
    )
    parity = Parity(
        max_absolute=2e-7,
        max_relative=0.0,
        rows=99,
        batch_sizes=[1, 8],
        examples="made up",
        sequences=200,
    )
    contract = pairs.CONTRACT.model_copy(update={"decoding": decoding, "parity": parity})
    graphs = {"encoder.onnx": pairs.encoder(), "decoder.onnx": pairs.decoder()}
    writer.write(graphs, contract, tmp_path, "pair", None)

    done = weir("inspect", "pair", "--models", tmp_path)

    assert done.code == 0
    shown = " ".join(done.out.split())
    for text in (
        "previous = 2, memory from memory, state from state, lengths of the source",
        "previous = the token chosen, state from next_state",
        "log_probabilities, but for 0 and 2",
        "at most 9, and 10 + 1.5 for each token of the source",
        "the same tokens for 200 sequences",
        "encoder: tensors",
        "batch x time x 1",
        "encoder: weight sharing, for one row",
        "decoder: tensors",
        "log_probabilities",
        "decoder: weight sharing, for one row",
    ):
        assert text in shown


def test_layers_of_both_graphs_of_a_pair_are_shown(weir: Weir, tmp_path: Path) -> None:
    graphs = {"encoder.onnx": dense(), "decoder.onnx": dense()}
    writer.write(graphs, pairs.CONTRACT, tmp_path, "pair", None)

    done = weir("inspect", tmp_path / "pair")

    rows = [line for line in done.out.splitlines() if "MatMul" in line]
    assert len(rows) == 2


def test_without_onnx_the_rest_is_shown(
    weir: Weir, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "weir.inspection.weight_sharing", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)

    done = weir("inspect", "dense", "--models", models)

    assert done.code == 0 and "parity" in done.out
    assert "pip install 'weir[export]'" in done.out


def test_imported_file_is_named_with_what_was_proved(
    weir: Weir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "net.onnx").write_bytes(onnx_models.affine())
    assert weir("import", tmp_path / "net.onnx", "--to", tmp_path / "models").code == 0

    shown = weir("inspect", tmp_path / "models" / "net").out

    digest = hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    assert f"net.onnx {digest[:16]}…" in shown
    assert "the imported file in ONNX Runtime" in shown and "PyTorch" not in shown
    assert "rows alone give what they give in a batch" in shown
    assert "weir import net.onnx --to models" in shown
