"""Asking a network for whole outputs: sources in, the best hypothesis of each out."""

from collections.abc import Sequence

import torch

from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq import search
from weir.training.seq2seq.batches import sources_in_order
from weir.training.seq2seq.hypotheses import Hypothesis
from weir.training.seq2seq.packed import Strip, encode
from weir.training.seq2seq.recipe import SearchSettings
from weir.training.seq2seq.sides import Sides
from weir.training.seq2seq.stepping import steps_of


@torch.inference_mode()
def answer(
    network: EncoderDecoder,
    sources: Sequence[str],
    sides: Sides,
    settings: SearchSettings,
    *,
    width: int,
) -> list[Hypothesis]:
    """The best hypothesis for each source, in the order of the sources.

    Args:
        network: on the CPU; it is put into eval mode.
        sources: texts.
        sides: how they become tokens.
        settings: of the search.
        width: of the beam; 1 is greedy.
    """
    network.eval()
    strip = Strip.of(encode(sources, sides.source, "sources"))
    found: list[Hypothesis | None] = [None] * len(strip)
    for batch in sources_in_order(strip):
        memory = network.encode(batch.tokens, batch.lengths)
        step = steps_of(network, memory, batch.lengths)
        limits = torch.full((len(batch.rows),), settings.most_tokens)
        power = settings.length_power
        if width == 1:
            best = search.greedy(step, memory.state, limits, length_power=power)
        else:
            ranked = search.beam(step, memory.state, limits, width=width, length_power=power)
            best = [hypotheses[0] for hypotheses in ranked]
        for row, hypothesis in zip(batch.rows.tolist(), best, strict=True):
            found[row] = hypothesis
    return [hypothesis for hypothesis in found if hypothesis is not None]
