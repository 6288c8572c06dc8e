"""The golden test of an encoder-decoder: recorded sources give the recorded tokens."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import pairs
from weir.bundle.contract import Contract
from weir.bundle.golden import Golden
from weir.server.errors import GoldenMismatch, ModelLoadError, ServerError
from weir.server.generation.encoder_decoder import EncoderDecoder, Graph, join_graphs
from weir.server.repository.golden_test import replay_pair
from weir.server.runtime.sequence_rules import rules_of
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Signature

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


def golden(**changes: Any) -> Golden:
    tokens = pairs.WHOLE_GOLDEN
    return Golden(
        {**tokens.inputs, **changes.get("inputs", {})},
        {**tokens.outputs, **changes.get("outputs", {})},
    )


def test_pair_that_answers_as_it_did_is_taken(pair: EncoderDecoder) -> None:
    for max_rows in (1, 2, 4):
        replay_pair(pair, pairs.WHOLE_GOLDEN, max_rows)


def test_other_answers_than_recorded_are_refused(pair: EncoderDecoder) -> None:
    spoilt = golden(outputs={"output_tokens": np.array([[4, 5], [0, 0]])})

    with pytest.raises(
        GoldenMismatch,
        match=r"golden row 0, decoded together: expected tokens \[4, 5\], got \[4, 4\]",
    ):
        replay_pair(pair, spoilt, 4)


def test_row_that_answers_otherwise_alone_is_refused(encoder: Graph, decoder: Graph) -> None:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = decoder.run(inputs)
        if inputs["state"].tolist() == [[3.0]]:  # the first step of the first row, alone
            outputs["log_probabilities"][:, 5] = 9.0
        return outputs

    pair = join_graphs(pairs.CONTRACT, encoder, replace(decoder, run=run))

    with pytest.raises(GoldenMismatch, match="golden row 0, decoded alone"):
        replay_pair(pair, pairs.WHOLE_GOLDEN, 4)


def test_pair_without_probabilities_is_refused(encoder: Graph, decoder: Graph) -> None:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = decoder.run(inputs)
        outputs["log_probabilities"][:] = np.nan
        return outputs

    pair = join_graphs(pairs.CONTRACT, encoder, replace(decoder, run=run))

    with pytest.raises(ServerError, match="no probabilities"):
        replay_pair(pair, pairs.WHOLE_GOLDEN, 4)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (None, "no recorded outputs of the pair"),
        (Golden(pairs.WHOLE_GOLDEN.inputs, {}), "no recorded outputs of the pair"),
        (
            Golden(pairs.WHOLE_GOLDEN.inputs, {"output_tokens": np.array([[4, 4], [0, 0]])}),
            "no recorded outputs of the pair",
        ),
        (
            Golden({"lengths": np.array([3, 1])}, pairs.WHOLE_GOLDEN.outputs),
            r"golden inputs: expected \['lengths', 'tokens'\], got \['lengths'\]",
        ),
        (Golden({}, pairs.WHOLE_GOLDEN.outputs), "golden inputs"),
        (
            Golden(
                pairs.WHOLE_GOLDEN.inputs,
                {name: array[:1] for name, array in pairs.WHOLE_GOLDEN.outputs.items()},
            ),
            "golden outputs: expected tokens and lengths of 2 rows",
        ),
        (
            Golden(
                pairs.WHOLE_GOLDEN.inputs,
                {
                    name: array.astype(np.float32)
                    for name, array in pairs.WHOLE_GOLDEN.outputs.items()
                },
            ),
            "golden outputs",
        ),
        (
            Golden(
                {**pairs.WHOLE_GOLDEN.inputs, "lengths": np.array([3])}, pairs.WHOLE_GOLDEN.outputs
            ),
            "golden inputs: expected the same number of rows",
        ),
    ],
    ids=[
        "none",
        "no outputs",
        "no lengths of answers",
        "no tokens",
        "no inputs",
        "fewer answers",
        "lengths that are no integers",
        "fewer lengths",
    ],
)
def test_recordings_that_prove_nothing_are_refused(
    pair: EncoderDecoder, recorded: Golden | None, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        replay_pair(pair, recorded, 4)
