"""Whole batches beside step-level batches: the same answers, other work."""

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.rivals.whole_requests import WholeRequests
from tests.helpers import pairs
from weir.server.generation.decoder_batch import DecoderBatch, Row
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.generation.slots import Layout

DECODING = pairs.CONTRACT.decoding
SOURCES = [[5, 6, 7], [8], [4, 4, 4, 4, 4], [9, 9]]


def layout() -> Layout:
    assert DECODING is not None
    return Layout(DECODING, pairs.CONTRACT.padded_axes["time"].padding)


def runner(graph: bytes) -> Callable[..., dict[str, np.ndarray]]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def rows(search: SearchParameters | None = None) -> list[Row]:
    return [
        Row(number, {"tokens": np.array(source)}, len(source), 9, search or SearchParameters(), 0.0)
        for number, source in enumerate(SOURCES)
    ]


def whole() -> WholeRequests:
    encode, decode = runner(pairs.encoder()), runner(pairs.decoder())
    return WholeRequests(layout(), encode=encode, decode=decode, lengths="lengths")


def test_answers_are_those_of_step_level_batches() -> None:
    batch, theirs = rows(), rows()
    ours = whole()
    ours.add(ours.encode(batch))
    while ours.is_busy:
        ours.step()

    steps = DecoderBatch(
        layout(),
        encode=runner(pairs.encoder()),
        decode=runner(pairs.decoder()),
        lengths="lengths",
        capacity=2,
    )
    steps.add(steps.encode(theirs))
    while steps.is_busy:
        steps.join()
        steps.step()

    assert [row.hypotheses for row in batch] == [row.hypotheses for row in theirs]


def test_every_row_is_computed_and_waited_for_until_the_last_has_ended() -> None:
    generation, batch = whole(), rows()
    generation.add(generation.encode(batch))

    joined, stepped = [], []
    while generation.is_busy:
        assert not generation.wants_rows
        joined.append(generation.join())
        stepped.append(generation.step())

    # The longest source has 5 tokens, so its answer ends with the sixth step at the latest.
    assert [each.slots for each in stepped] == [len(SOURCES)] * len(stepped)
    assert [len(each) for each in joined[:2]] == [len(SOURCES), 0]
    assert not any(each.ended for each in stepped[:-1])
    assert set(stepped[-1].ended) == set(batch)
    assert generation.wants_rows and not generation.used_slots


def test_a_batch_without_waiting_requests_ends() -> None:
    generation, batch = whole(), rows()
    generation.add(generation.encode(batch))
    generation.step()

    generation.drop(batch)

    assert generation.wants_rows


def test_only_greedy_search_is_offered() -> None:
    generation = whole()
    encoded = generation.encode(rows(SearchParameters(width=2)))

    with pytest.raises(ValueError, match="greedy"):
        generation.add(encoded)
