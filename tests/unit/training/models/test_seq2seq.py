"""Encoder-decoder: all steps against single steps, batches against single rows."""

import pytest
import torch
from torch import Tensor

from tests.helpers.encoder_decoders import TARGET, network, sources
from weir.training.models.decoder import Memory
from weir.training.models.seq2seq import EncoderDecoder

TOLERANCE = 1e-6
"""Sums of at most 32 float32 products of size 1, in another order."""

every_form = pytest.mark.parametrize(
    "form",
    [
        pytest.param({}, id="gru"),
        pytest.param({"cell": "lstm"}, id="lstm"),
        pytest.param({"layers": 2, "decoder_layers": 2, "cell": "lstm"}, id="deep"),
        pytest.param({"bidirectional": False}, id="one direction"),
        pytest.param({"attends": False}, id="no attention"),
        pytest.param({"attends": False, "cell": "lstm", "decoder_layers": 2}, id="deep, none"),
        pytest.param({"is_tied": True}, id="tied"),
    ],
)


def previous(rows: int = 12, steps: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(1, len(TARGET), (rows, steps), generator=generator)
    tokens[:, 0] = 2
    return tokens


def one_by_one(model: EncoderDecoder, tokens: Tensor, lengths: Tensor, given: Tensor) -> Tensor:
    """Log-probabilities (B, U, V) of repeated single steps."""
    memory = model.encode(tokens, lengths)
    state, made = memory.state, []
    for column in given.T:
        step = model.step(column, state, memory, lengths)
        state = step.state
        made.append(step.log_probabilities)
    return torch.stack(made, dim=1)


@every_form
@torch.no_grad()
def test_all_steps_at_once_are_the_single_steps(form: dict[str, object]) -> None:
    model, (tokens, lengths), given = network(**form), sources(), previous()

    logits = model(tokens, lengths, given)

    expected = one_by_one(model, tokens, lengths, given)
    torch.testing.assert_close(torch.log_softmax(logits, 2), expected, atol=TOLERANCE, rtol=0)


@every_form
@torch.no_grad()
def test_a_row_alone_is_the_row_in_a_batch(form: dict[str, object]) -> None:
    model, (tokens, lengths), given = network(**form), sources(), previous()
    memory = model.encode(tokens, lengths)
    together = model.step(given[:, 0], memory.state, memory, lengths)
    logits = model(tokens, lengths, given)

    for row, length in enumerate(lengths.tolist()):
        own = (tokens[row : row + 1, :length], lengths[row : row + 1])
        alone = model.encode(*own)
        step = model.step(given[row : row + 1, 0], alone.state, alone, own[1])
        torch.testing.assert_close(step.state[0], together.state[row], atol=TOLERANCE, rtol=0)
        if step.attention is not None and together.attention is not None:
            looked = together.attention[row]
            torch.testing.assert_close(step.attention[0], looked[:length], atol=TOLERANCE, rtol=0)
            assert (looked[length:] == 0).all()
        expected = model(*own, given[row : row + 1])[0]
        torch.testing.assert_close(logits[row], expected, atol=4 * TOLERANCE, rtol=0)


@every_form
def test_every_weight_learns(form: dict[str, object]) -> None:
    model, (tokens, lengths) = network(**form), sources()

    model(tokens, lengths, previous()).square().sum().backward()

    dead = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert dead == []


@pytest.mark.parametrize(
    ("form", "size"),
    [({"decoder_layers": 2}, 10), ({"cell": "lstm", "decoder_layers": 2}, 20)],
    ids=["gru", "lstm"],
)
def test_state_is_one_tensor(form: dict[str, object], size: int) -> None:
    model, (tokens, lengths) = network(**form), sources()

    memory = model.encode(tokens, lengths)

    assert model.decoder.cells.state_size == size and memory.state.shape == (12, size)
    assert memory.states is not None and memory.states.shape == (12, 9, 10)
    assert memory.keys is not None and memory.keys.shape == (12, 9, 5)


@torch.no_grad()
def test_without_attention_there_is_a_context() -> None:
    model, (tokens, lengths) = network(attends=False), sources()

    memory = model.encode(tokens, lengths)

    assert memory.states is None and memory.keys is None and memory.context is not None
    assert memory.context.shape == (12, 10) and not model.attends
    assert model.step(lengths, memory.state, memory, lengths).attention is None


def test_tied_weights_are_one() -> None:
    model = network(is_tied=True)

    assert model.decoder.output.weight is model.decoder.embedding.weight


@torch.no_grad()
def test_without_a_teacher_a_step_sees_its_own_draw() -> None:
    model, (tokens, lengths), given = network(), sources(), previous()

    never = torch.zeros_like(given, dtype=torch.bool)
    other = previous().flip(1)
    other[:, 0] = 2
    torch.manual_seed(5)
    first = model(tokens, lengths, given, never)
    torch.manual_seed(5)
    second = model(tokens, lengths, other, never)

    torch.testing.assert_close(first, second, atol=0, rtol=0)
    taught = model(tokens, lengths, given)
    torch.testing.assert_close(first[:, 0], taught[:, 0], atol=TOLERANCE, rtol=0)
    assert not torch.allclose(first, taught)


@torch.no_grad()
def test_a_row_sees_the_token_given_where_it_is_forced() -> None:
    """With two steps, a row's second logits tell whether it saw the token given."""
    model = network()
    tokens, lengths = sources(40)
    given = torch.full((40, 2), 2)
    # One that the network never draws: a memory of it shows only where it was given.
    model.decoder.output.bias[9] = -100.0
    given[:, 1] = 9
    forced = torch.rand(given.shape, generator=torch.Generator().manual_seed(5)) < 0.5

    mixed = model(tokens, lengths, given, forced)

    taught = model(tokens, lengths, given)
    saw = torch.isclose(mixed[:, 1], taught[:, 1], atol=TOLERANCE).all(dim=1)
    assert torch.equal(saw, forced[:, 1])


@torch.no_grad()
def test_own_tokens_are_drawn_as_likely_as_the_network_finds_them() -> None:
    """Again by the second logits: those of a row are what one of all tokens would give."""
    model = network()
    tokens, lengths = (each[:1].repeat(4000, *[1] * (each.ndim - 1)) for each in sources())
    given = torch.full((4000, 2), 2)

    drawn = model(tokens, lengths, given, torch.zeros_like(given, dtype=torch.bool))[:, 1]

    every = torch.stack([torch.full((len(TARGET),), 2), torch.arange(len(TARGET))], dim=1)
    count = len(TARGET)
    taught = model(tokens[:count], lengths[:count], every)
    saw = (drawn[:, None] - taught[None, :, 1]).abs().amax(dim=2).argmin(dim=1)
    shares = torch.bincount(saw, minlength=count) / len(saw)
    likely = torch.softmax(taught[0, 0], dim=0)
    torch.testing.assert_close(shares, likely, atol=0.04, rtol=0)


def test_in_bfloat16_every_weight_learns_from_its_own_draws_too() -> None:
    model, (tokens, lengths), given = network(), sources(), previous()

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens, lengths, given, torch.zeros_like(given, dtype=torch.bool))
    logits.float().square().sum().backward()

    dead = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert dead == []


@torch.no_grad()
def test_unreal_memory_changes_no_step() -> None:
    model, (tokens, lengths) = network(), sources()
    memory = model.encode(tokens, lengths)
    assert memory.states is not None and memory.keys is not None
    beyond = torch.arange(9) >= lengths[:, None]
    spoiled = Memory(
        memory.states.masked_fill(beyond[:, :, None], 1e6),
        memory.keys.masked_fill(beyond[:, :, None], -1e6),
        memory.state,
        None,
    )

    before = model.step(lengths, memory.state, memory, lengths)
    after = model.step(lengths, memory.state, spoiled, lengths)

    torch.testing.assert_close(after.log_probabilities, before.log_probabilities, atol=0, rtol=0)
