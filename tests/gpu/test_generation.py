"""Encoder-decoders step by step: the answers of PyTorch, with the state on the device or not."""

from dataclasses import replace

import numpy as np
import pytest

from tests.gpu.conftest import Publish
from weir.bundle import reader
from weir.server.generation.decoder_batch import Row
from weir.server.generation.encoder_decoder import EncoderDecoder, Graph, join_graphs
from weir.server.generation.sampling_parameters import SamplingParameters, SearchParameters
from weir.server.repository import loader
from weir.server.runtime.sequence_rules import rules_of
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Signature

GREEDY = SearchParameters()
SEARCHES = {
    "greedy": GREEDY,
    "beam": SearchParameters(width=3, n_best=2),
    "sampling": SearchParameters(n_best=2, sampling=SamplingParameters(1.0, 5, 7)),
}
CAPACITY = 6
TOLERANCE = 1e-4
"""Of a log-probability, a sum over at most 20 tokens. Measured on CUDA at load: 5e-6 for a step."""


@pytest.fixture(scope="module")
def pair(provider: str, publish: Publish) -> EncoderDecoder:
    """Both graphs on the provider; the decoder's state stays on the device."""
    graphs, contract = [], None
    for files in loader.read(publish("pronounce")):
        session = Session(
            files.graph, provider=provider, threads=1, has_few_shapes=False, external=files.external
        )
        contract = files.contract
        assert contract is not None
        signature = Signature(session.inputs, session.outputs, batch_axis="batch", max_rows=32)
        own = contract.of_graph(set(signature.inputs))
        rules = rules_of(own, signature.inputs)
        graphs.append(Graph(session.run, signature, rules, session))
        assert session.provider == provider and session.can_bind
    assert contract is not None
    return join_graphs(contract, *graphs)


@pytest.fixture
def unbound(pair: EncoderDecoder) -> EncoderDecoder:
    """The same graphs; all tensors go to the device and back in every step."""
    return replace(pair, decoder=replace(pair.decoder, device=None))


def decode(pair: EncoderDecoder, publish: Publish, search: SearchParameters) -> list[Row]:
    """Decode the recorded sources in two batches, the second of which joins later."""
    golden = reader.read(publish("pronounce")).golden()
    assert golden is not None
    rows = pair.rows(golden.inputs, search)
    batch, half = pair.decoder_batch(CAPACITY), len(rows) // 2
    batch.add(batch.encode(rows[:half]))
    steps = 0
    while batch.is_busy:
        batch.join()
        assert not batch.step().failed
        steps += 1
        if steps == 3:
            batch.add(batch.encode(rows[half:]))
    assert all(row.hypotheses for row in rows)
    return rows


def test_answers_are_those_of_pytorch(pair: EncoderDecoder, publish: Publish) -> None:
    golden = reader.read(publish("pronounce")).golden()
    assert golden is not None

    rows = decode(pair, publish, GREEDY)

    lengths = golden.outputs["output_lengths"]
    expected = [
        tokens[:length].tolist()
        for tokens, length in zip(golden.outputs["output_tokens"], lengths, strict=True)
    ]
    assert [list(row.hypotheses[0].tokens) for row in rows] == expected
    assert len({tuple(answer) for answer in expected}) > len(rows) // 2


@pytest.mark.parametrize("search", SEARCHES)
def test_state_on_the_device_gives_the_same_answers(
    search: str, pair: EncoderDecoder, unbound: EncoderDecoder, publish: Publish
) -> None:
    bound, copied = (decode(each, publish, SEARCHES[search]) for each in (pair, unbound))

    for ours, theirs in zip(bound, copied, strict=True):
        assert [each.tokens for each in ours.hypotheses] == [
            each.tokens for each in theirs.hypotheses
        ]
        np.testing.assert_allclose(
            [each.log_probability for each in ours.hypotheses],
            [each.log_probability for each in theirs.hypotheses],
            atol=TOLERANCE,
        )


def test_step_with_tensors_on_the_device_is_the_same_step(
    pair: EncoderDecoder, publish: Publish
) -> None:
    golden = reader.read(publish("pronounce")).golden("decoder")
    decoder, decoding = pair.decoder.device, pair.decoding
    assert golden is not None and decoder is not None
    inputs, states = dict(golden.inputs), dict(decoding.from_step)
    kept = frozenset(states.values())
    placed = {name: decoder.place(array) for name, array in inputs.items()}

    for _ in range(3):
        expected = pair.decoder.run(inputs)
        outputs = decoder.run_bound({**placed, decoding.previous: inputs[decoding.previous]}, kept)
        assert set(outputs.kept) == kept and set(outputs.arrays) == set(expected) - kept
        for name, array in outputs.arrays.items():
            np.testing.assert_allclose(array, expected[name], atol=TOLERANCE)
        for name, output in states.items():
            np.testing.assert_allclose(
                outputs.kept[output].numpy(), expected[output], atol=TOLERANCE
            )
            inputs[name], placed[name] = expected[output], outputs.kept[output]
