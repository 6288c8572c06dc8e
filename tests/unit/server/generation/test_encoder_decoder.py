"""Two graphs that become one encoder-decoder."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import pairs
from tests.unit.server.generation import toys
from weir.bundle.contract import Contract
from weir.bundle.sequences import PaddedAxis
from weir.server.errors import ModelLoadError
from weir.server.generation.encoder_decoder import EncoderDecoder, Graph, join_graphs
from weir.server.generation.request import outputs_of
from weir.server.generation.sampling import Hypothesis
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.runtime.sequence_rules import rules_of
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Signature, TensorSpec

Array = NDArray[Any]


def graph(onnx: bytes, contract: Contract = pairs.CONTRACT) -> Graph:
    session = Session(onnx, provider="cpu", threads=1)
    signature = Signature(session.inputs, session.outputs, batch_axis="batch", max_rows=4)
    own = contract.of_graph({spec.name for spec in session.inputs})
    return Graph(session.run, signature, rules_of(own, signature.inputs))


@pytest.fixture(scope="module")
def encoder() -> Graph:
    return graph(pairs.encoder())


@pytest.fixture(scope="module")
def decoder() -> Graph:
    return graph(pairs.decoder())


@pytest.fixture
def pair(encoder: Graph, decoder: Graph) -> EncoderDecoder:
    return join_graphs(pairs.CONTRACT, encoder, decoder)


def respecified(graph: Graph, name: str, **changes: Any) -> Graph:
    """The graph with another specification of one input."""
    inputs = {**graph.signature.inputs}
    inputs[name] = replace(inputs[name], **changes)
    outputs = list(graph.signature.outputs.values())
    signature = Signature(list(inputs.values()), outputs, batch_axis="batch", max_rows=4)
    return replace(graph, signature=signature)


def axis(**changes: Any) -> PaddedAxis:
    return pairs.CONTRACT.padded_axes["time"].model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padded_axes": {}}, r"expected one for an encoder-decoder, got \[\]"),
        (
            {"padded_axes": {"time": axis(), "letters": axis()}},
            r"expected one for an encoder-decoder, got \['letters', 'time'\]",
        ),
        (
            {"padded_axes": {"time": axis(padding={"memory": 0})}},
            "time: expected an input of the encoder, got none",
        ),
        ({"decoding": None}, "expected decoding, got none"),
    ],
    ids=["no axis", "two axes", "no input of the encoder", "no decoding"],
)
def test_contract_that_does_not_fit_slots_is_refused(
    encoder: Graph, decoder: Graph, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        join_graphs(pairs.CONTRACT.model_copy(update=changes), encoder, decoder)


@pytest.mark.parametrize(
    ("part", "name", "changes", "expected"),
    [
        ("decoder", "memory", {"axes": ("batch", 1, "time")}, "axis 'time' second"),
        ("encoder", "tokens", {"axes": ("time", "batch")}, "axis 'time' second"),
        ("encoder", "tokens", {"axes": ("batch", "time", "any")}, "no variable axes but 'batch'"),
        ("decoder", "state", {"axes": ("batch", None)}, "no variable axes but 'batch'"),
        ("decoder", "previous", {"datatype": "INT32"}, "INT64, got INT32"),
        ("decoder", "lengths", {"datatype": "INT32"}, "INT64, got INT32"),
        ("encoder", "lengths", {"datatype": "INT32"}, "INT64, got INT32"),
    ],
    ids=[
        "memory's time",
        "source's time",
        "source's other axis",
        "state's axis",
        "token",
        "decoder's lengths",
        "encoder's lengths",
    ],
)
def test_graph_with_other_axes_or_types_is_refused(
    pair: EncoderDecoder, part: str, name: str, changes: dict[str, Any], expected: str
) -> None:
    graphs = {"encoder": pair.encoder, "decoder": pair.decoder}
    graphs[part] = respecified(graphs[part], name, **changes)

    with pytest.raises(ModelLoadError, match=f"'{name}': expected {expected}"):
        join_graphs(pairs.CONTRACT, **graphs)


def test_rows_are_cut_to_their_lengths_and_limits(pair: EncoderDecoder) -> None:
    inputs = {"tokens": np.array([[5, 6, 7], [8, 0, 0]]), "lengths": np.array([3, 1])}

    rows = pair.rows(inputs, SearchParameters(max_tokens=4), arrived_s=7.0)

    assert [row.inputs["tokens"].tolist() for row in rows] == [[5, 6, 7], [8]]
    assert [list(row.inputs) for row in rows] == [["tokens"]] * 2
    assert [(row.number, row.length, row.limit, row.arrived_s) for row in rows] == [
        (0, 3, 4, 7.0), (1, 1, 4, 7.0),
    ]  # fmt: skip
    assert [row.limit for row in pair.rows(inputs, SearchParameters(max_tokens=99))] == [9, 9]


def test_rows_without_lengths_are_full(encoder: Graph, decoder: Graph) -> None:
    contract = pairs.CONTRACT.model_copy(update={"padded_axes": {"time": axis(lengths=None)}})
    pair = join_graphs(contract, encoder, decoder)

    rows = pair.rows({"tokens": np.array([[5, 6, 7], [8, 1, 0]])}, SearchParameters())

    assert [row.length for row in rows] == [3, 3]


def test_signature_has_the_encoders_inputs_and_the_outputs_of_decoding(
    pair: EncoderDecoder,
) -> None:
    signature = pair.signature(3)

    assert list(signature.inputs) == ["tokens", "lengths"]
    assert list(signature.outputs.values()) == [
        TensorSpec("output_tokens", "INT64", ("batch", "steps")),
        TensorSpec("output_lengths", "INT64", ("batch",)),
        TensorSpec("scores", "FP32", ("batch",)),
    ]
    assert signature.max_rows == 3 and signature.has_rows


def test_hypotheses_of_unequal_length_are_padded() -> None:
    rows = [toys.row([4]) for _ in range(3)]
    for row, tokens in zip(rows, [(5, 6), (), (7,)], strict=True):
        row.hypotheses = [
            Hypothesis(tokens, -1.0, -0.5, True),
            Hypothesis((1,) * 9, -9.0, -9.0, True),
        ]

    outputs = outputs_of(rows, padding=0)

    assert outputs["output_tokens"].tolist() == [[5, 6], [0, 0], [7, 0]]
    assert outputs["output_lengths"].tolist() == [2, 0, 1]
    assert outputs["scores"].dtype == np.float32


def test_only_empty_hypotheses_have_no_tokens() -> None:
    row = toys.row([4])
    row.hypotheses = [Hypothesis((), -1.0, -1.0, True)]

    assert outputs_of([row], padding=0)["output_tokens"].shape == (1, 0)
