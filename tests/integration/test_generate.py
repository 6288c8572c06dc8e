"""`Generate` by the client and by the command: text in, text out, token by token."""

import asyncio
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import weir
from tests.helpers.encoder_decoders import SOURCE, TARGET, network
from tests.integration.generation import MAX_STEPS
from tests.integration.harness import ANSWER_S, Server
from weir.cli import main as cli
from weir.training.data.pairs import load_pair_file
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq import search
from weir.training.seq2seq.search import Hypothesis, stepper_of

TEXTS = ["abc", "hgfedc", "a", "Fade BAD"]
WIDTH = 3


@pytest.fixture
def client(generating: Server) -> Iterator[weir.Client]:
    with weir.Client(generating.target, timeout_s=ANSWER_S) as client:
        yield client


@pytest.fixture(scope="module")
def model() -> EncoderDecoder:
    with torch.random.fork_rng():
        return network()


def best(model: EncoderDecoder, text: str, *, width: int = 1) -> Hypothesis:
    """PyTorch's hypotheses."""
    ids = [SOURCE.index(letter) if letter in SOURCE else 1 for letter in text.lower()]
    lengths = torch.tensor([len(ids)])
    with torch.no_grad():
        memory = model.encode(torch.tensor([ids]), lengths)
        step = stepper_of(model, memory, lengths)
        limits = torch.tensor([MAX_STEPS])
        if width == 1:
            return search.greedy(step, memory.state, limits)[0]
        return search.beam(step, memory.state, limits, width=width)[0][0]


def text_of(answer: Hypothesis) -> str:
    return " ".join(TARGET[token] for token in answer.tokens)


@pytest.mark.parametrize("text", TEXTS)
def test_streamed_tokens_are_the_answer_of_pytorch(
    client: weir.Client, model: EncoderDecoder, text: str
) -> None:
    expected = best(model, text)

    generation = client.generate("pair", text, attention=True)
    tokens, result = list(generation), generation.result()

    assert [token.token for token in tokens] == [TARGET[each] for each in expected.tokens]
    assert "".join(token.text for token in tokens) == result.text == text_of(expected)
    (found,) = result.hypotheses
    assert found.is_complete == expected.is_complete
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
    assert found.attention is not None and expected.attention is not None
    np.testing.assert_allclose(
        found.attention, expected.attention[:, : len(result.source)], atol=1e-5
    )


def test_source_tokens_and_unknown_ones_are_returned(client: weir.Client) -> None:
    result = client.generate("pair", "Ax b").result()

    assert (list(result.source), list(result.unknown)) == (["a", "x", " ", "b"], ["x", " "])
    assert (result.model, result.version) == ("pair", "1")


@pytest.mark.parametrize("text", TEXTS)
def test_beam_finds_the_hypotheses_of_pytorch(
    client: weir.Client, model: EncoderDecoder, text: str
) -> None:
    result = client.generate("pair", text, search=weir.Beam(WIDTH), n_best=WIDTH).result()

    scores = [one.score for one in result.hypotheses]
    assert result.text == text_of(best(model, text, width=WIDTH))
    assert len(scores) == WIDTH and scores == sorted(scores, reverse=True)


def test_samples_of_equal_seeds_are_equal(client: weir.Client) -> None:
    def drawn(seed: int | None) -> str:
        sample = weir.Sample(temperature=2.0, seed=seed)
        return client.generate("pair", "abc", search=sample).result().text

    assert drawn(7) == drawn(7)
    assert len({drawn(seed) for seed in (*range(8), None, None)}) > 1


def test_answer_may_be_shorter_and_without_attention(client: weir.Client) -> None:
    (short,) = client.generate("pair", ["a", "b"], max_tokens=2).result().hypotheses
    (plain,) = client.generate("plain", "ab", attention=True).result().hypotheses

    assert len(short.tokens) <= 2 and short.attention is None
    assert plain.attention is None


def test_many_at_once_get_their_own_answers(generating: Server, model: EncoderDecoder) -> None:
    expected = {text: text_of(best(model, text)) for text in TEXTS}

    async def main() -> list[weir.Generated]:
        async with weir.AsyncClient(generating.target, timeout_s=ANSWER_S) as client:
            asked = [client.generate("pair", text) for text in TEXTS * 8]
            return await asyncio.gather(*(generation.result() for generation in asked))

    found = asyncio.run(main())

    assert [each.text for each in found] == [expected[text] for text in TEXTS * 8]


def test_answers_that_are_read_count_as_answered(client: weir.Client, generating: Server) -> None:
    labels = {"model": "pair", "version": "1"}
    generating.settle()
    answered = generating.metric("weir_requests_total", **labels, status="OK")
    left = generating.metric("weir_requests_total", **labels, status="CANCELLED")

    for _ in range(30):
        client.generate("pair", "abc").result()

    generating.wait_for_metric(answered + 30, "weir_requests_total", **labels, status="OK")
    assert generating.metric("weir_requests_total", **labels, status="CANCELLED") == left


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        ("pair", "", "expected a text with tokens, got none"),
        ("pair", "a" * 13, "expected at most 12 tokens, got 13"),
    ],
    ids=["empty", "long"],
)
def test_invalid_text_is_refused(client: weir.Client, model: str, text: str, message: str) -> None:
    with pytest.raises(weir.InvalidArgument, match=message):
        client.generate(model, text).result()


def test_command_answers_like_the_client(
    generating: Server,
    model: EncoderDecoder,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "looks.png"
    arguments = ["generate", "abx", "--model", "pair", "--target", generating.target]

    def typed(*more: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, *more])
        assert not ended.value.code
        return capsys.readouterr().out

    assert typed("--out", str(out)).splitlines() == [text_of(best(model, "abx"))]
    assert out.stat().st_size > 1000
    (found,) = json.loads(typed("--beam", "3", "--n-best", "2", "--json"))
    assert len(found["hypotheses"]) == 2 and found["unknown"] == ["x"]


@pytest.mark.parametrize("described_by", ["bundle", "server"])
def test_served_answers_are_scored_as_those_of_the_network(
    generating: Server,
    encoder_decoders: Path,
    model: EncoderDecoder,
    *,
    described_by: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """PyTorch's own answers are the targets, except for every fourth source."""
    sources = ["".join(letters) for letters in product("abcdefgh", repeat=2)]
    right = {source: text_of(best(model, source)) or "Z" for source in sources}
    data = tmp_path / "pairs.tsv"
    lines = (f"{s}\t{right[s] if row % 4 else 'Z Z'}\n" for row, s in enumerate(sources))
    data.write_text("".join(lines))
    tested = load_pair_file(data)
    wrong = [right[s] not in r for s, r in zip(tested.sources, tested.references, strict=True)]
    bundle = ["--bundle", str(encoder_decoders / "pair")] if described_by == "bundle" else []

    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "pair", "--data", str(data), *bundle, "--target", generating.target])

    assert ended.value.code == 0
    assert f"word_error_rate {sum(wrong) / len(wrong):.6g}\n" in capsys.readouterr().out
    assert 0 < sum(wrong) < len(wrong)
