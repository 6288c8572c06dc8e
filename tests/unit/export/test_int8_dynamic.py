from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.helpers.sequence_networks import Mean, Recurrent, class_spec, examples, recurrent_spec
from weir.bundle.contract import Tolerance
from weir.bundle.reader import read
from weir.export.accuracy import NO_ANSWER
from weir.export.errors import AccuracyError, ExportError
from weir.export.int8 import DynamicInt8
from weir.export.publishing import Published, publish
from weir.export.runtime import open_session


def settings(network: torch.nn.Module, rows: int = 200, max_drop: float = 2.0) -> DynamicInt8:
    """What the network answers, so that it is right every time before it is quantised."""
    given = examples(rows)
    with torch.inference_mode():
        answers = network(**given)[0].argmax(dim=-1)
    if answers.ndim == 2:
        is_real = torch.arange(answers.shape[1]) < given["lengths"][:, None]
        answers = answers.masked_fill(~is_real, NO_ANSWER)
    return DynamicInt8(
        test={name: tensor.numpy() for name, tensor in given.items()},
        test_from="test rows",
        answers=answers.numpy(),
        max_drop=max_drop,
    )


@pytest.fixture(scope="module")
def network() -> Recurrent:
    torch.manual_seed(0)
    return Recurrent("LSTM").eval()


@pytest.fixture(scope="module")
def published(network: Recurrent, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(
        network,
        examples(),
        recurrent_spec(),
        to=tmp_path_factory.mktemp("models"),
        name="tagger",
        precision=settings(network),
    )


def test_layers_compute_in_integers(published: Published) -> None:
    model = onnx.load_from_string(read(published.path).model)

    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("DynamicQuantizeLSTM") == kinds.count("MatMulInteger") == 1
    assert "LSTM" not in kinds and "MatMul" not in kinds
    assert not model.metadata_props


def test_contract_says_what_it_cost(published: Published, network: Recurrent) -> None:
    bundle = read(published.path)
    judged = settings(network)

    (logits,) = open_session(bundle.model).run(["logits"], dict(judged.test))
    asked = judged.answers != NO_ANSWER
    cost = bundle.contract.quantisation
    assert cost is not None and cost == published.quantisation
    assert (cost.method, cost.calibration, cost.calibration_rows) == ("dynamic", None, None)
    assert (cost.test, cost.test_rows, cost.before) == ("test rows", 200, 1.0)
    # Other neighbours, other steps: in one batch of all rows an answer may differ.
    same = (logits.argmax(axis=-1) == judged.answers)[asked].mean()
    assert cost.after == pytest.approx(same, abs=0.01)
    assert (bundle.contract.precision, bundle.contract.providers) == ("int8", ["cpu"])


def test_parity_is_that_of_the_scores(published: Published) -> None:
    """A tag that changes is no distance of 1."""
    assert 1e-4 < published.parity.max_absolute < 0.1


def test_golden_outputs_are_the_quantised_graphs_scores(published: Published) -> None:
    bundle = read(published.path)
    golden = bundle.golden()
    assert golden is not None and list(golden.outputs) == ["logits"]

    (logits,) = open_session(bundle.model).run(["logits"], dict(golden.inputs))

    np.testing.assert_array_equal(logits, golden.outputs["logits"])


def test_tolerance_covers_what_neighbours_change(published: Published) -> None:
    bundle = read(published.path)
    golden = bundle.golden()
    assert golden is not None
    session = open_session(bundle.model)

    for row, length in enumerate(golden.inputs["lengths"]):
        alone = {
            "tokens": golden.inputs["tokens"][row : row + 1, :length],
            "lengths": golden.inputs["lengths"][row : row + 1],
        }
        (logits,) = session.run(["logits"], alone)
        np.testing.assert_allclose(
            logits[0],
            golden.outputs["logits"][row, :length],
            atol=bundle.contract.tolerance.absolute,
            rtol=bundle.contract.tolerance.relative,
        )


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_layer_without_an_integer_kernel_is_refused(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Recurrent(kind).eval()

    with pytest.raises(
        ExportError, match=f"int8: ONNX Runtime has an integer kernel for LSTM and none for {kind}"
    ):
        publish(
            network,
            examples(),
            recurrent_spec(),
            to=tmp_path,
            name="tagger",
            precision=settings(network, 20),
        )

    assert list(tmp_path.iterdir()) == []


def test_dense_layers_of_a_classifier_are_quantised(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Mean().eval()

    published = publish(
        network,
        examples(),
        class_spec(),
        to=tmp_path,
        name="mean",
        precision=settings(network, max_drop=5.0),
    )

    kinds = [node.op_type for node in onnx.load_from_string(read(published.path).model).graph.node]
    assert "MatMulInteger" in kinds
    golden = read(published.path).golden()
    assert golden is not None and set(golden.outputs) == {"logits", "probabilities"}


def test_dear_quantisation_is_refused(network: Recurrent, tmp_path: Path) -> None:
    with torch.no_grad():
        wide = Recurrent("LSTM").eval()
        wide.load_state_dict(network.state_dict())
        # One weight a thousand times the others leaves them a step or two of the 127.
        wide.fc.weight[0, 0] = 1000.0
        wide.embed.weight[:, 0] *= 1000.0

    loose = recurrent_spec(tolerance=Tolerance(absolute=0.1, relative=0.0))

    with pytest.raises(AccuracyError, match=r"int8: accuracy falls from .* on 40 test rows"):
        publish(
            wide,
            examples(),
            loose,
            to=tmp_path,
            name="tagger",
            precision=settings(wide, 40, max_drop=0.0),
        )

    assert list(tmp_path.iterdir()) == []
