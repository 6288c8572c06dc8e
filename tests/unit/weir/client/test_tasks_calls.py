"""Task calls of both clients against the fake server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import weir
from tests.unit.weir.fake_server import FakeServer
from weir import AsyncClient, Beam, ClassifiedText, Client, GeneratedToken, Sample, TaggedToken
from weir.client.results import Class

Ask = Callable[[Any], Any]
Both = Callable[[Ask], Any]


@pytest.fixture(params=["threads", "asyncio"])
def both(request: pytest.FixtureRequest, fake: FakeServer) -> Both:
    """Does the same with either client; what is awaitable is awaited."""

    def do(ask: Ask) -> Any:
        if request.param == "threads":
            with Client(fake.target, timeout_s=5) as client:
                return ask(client)

        async def main() -> Any:
            async with AsyncClient(fake.target, timeout_s=5) as client:
                found = ask(client)
                return await found if isinstance(found, Awaitable) else found

        return asyncio.run(main())

    return do


def test_tokens_are_tagged(both: Both) -> None:
    texts = ["HALLO dear xylophone", ["New York"]]

    tagged = both(lambda client: client.tag("shouts", texts))

    assert tagged == [
        [
            TaggedToken("HALLO", "LOUD", 0.75, is_unknown=False),
            TaggedToken("dear", "quiet", 0.75, is_unknown=False),
            TaggedToken("xylophone", "quiet", 0.75, is_unknown=True),
        ],
        [TaggedToken("New York", "quiet", 0.75, is_unknown=False)],
    ]


def test_texts_are_classified(both: Both) -> None:
    found = both(lambda client: client.classify_text("moods", ["one two", "box"], top=1))

    assert found == [
        ClassifiedText([Class(0.75, 3, "of 2 tokens")], []),
        ClassifiedText([Class(0.75, 3, "of 1 tokens")], ["box"]),
    ]


def test_series_goes_on(both: Both) -> None:
    found = both(lambda client: client.forecast("rising", {"a": [1, 2], "b": [3, 4]}, horizon=2))

    assert found.name == "a" and found.values.tolist() == [3.0, 4.0]


def test_only_column_needs_no_name(both: Both) -> None:
    found = both(lambda client: client.forecast("rising", np.array([1.5])))

    assert found.name == "sales" and found.values.tolist() == [2.5, 3.5, 4.5]


def test_forecast_without_an_interval_says_so(both: Both) -> None:
    found = both(lambda client: client.forecast("rising", [1.5]))

    assert found.lower is found.upper is found.level is None


def test_forecast_has_the_interval_of_its_values(both: Both) -> None:
    found = both(lambda client: client.forecast("wide", [1.5], horizon=2))

    assert found.values.tolist() == [2.5, 3.5] and found.level == 0.8
    assert (found.lower.tolist(), found.upper.tolist()) == ([1.5, 2.5], [4.5, 5.5])


def test_result_comes_without_its_tokens(both: Both, fake: FakeServer) -> None:
    found = both(lambda client: client.generate("reverse", "abx", attention=True).result())

    assert (found.model, found.version, found.text) == ("reverse", "1", "xba")
    assert (found.source, found.unknown) == (["a", "b", "x"], ["x"])
    (best,) = found.hypotheses
    assert (best.tokens, best.log_probability, best.score) == (["x", "b", "a"], -1.5, -0.5)
    assert best.is_complete
    assert best.attention.tolist() == np.eye(3)[::-1].tolist()
    assert fake.tasks.requests[0].HasField("greedy") and fake.tasks.requests[0].n_best == 1


def test_tokens_come_before_the_result(fake: FakeServer) -> None:
    with Client(fake.target, timeout_s=5) as client:
        generation = client.generate("reverse", ["a", "b"], max_tokens=1)
        tokens = list(generation)

        assert tokens == [GeneratedToken("b", "b", -0.5)]
        assert not generation.result().hypotheses[0].is_complete
        assert list(generation) == [] and generation.result().text == "b"


def test_tokens_come_before_the_result_to_asyncio_too(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(fake.target, timeout_s=5) as client:
            generation = client.generate("reverse", "ab")
            assert [token.text async for token in generation] == ["b", "a"]
            assert (await generation.result()).text == "ba"
            assert [token async for token in generation] == []

    asyncio.run(main())


def test_beam_gives_hypotheses_and_no_tokens(fake: FakeServer) -> None:
    with Client(fake.target, timeout_s=5) as client:
        generation = client.generate("reverse", "ab", search=Beam(4, length_power=0.0), n_best=3)
        assert list(generation) == []

    request = fake.tasks.requests[0]
    assert (request.beam.width, request.beam.length_power, request.n_best) == (4, 0.0, 3)
    assert [each.score for each in generation.result().hypotheses] == [-0.5, -1.5, -2.5]
    assert all(each.attention is None for each in generation.result().hypotheses)


def test_beam_leaves_its_length_power_to_the_server(fake: FakeServer) -> None:
    with Client(fake.target, timeout_s=5) as client:
        client.generate("reverse", "ab", search=Beam(2)).result()

    assert not fake.tasks.requests[0].beam.HasField("length_power")


def test_samples_draw_a_seed_unless_given(fake: FakeServer) -> None:
    with Client(fake.target, timeout_s=5) as client:
        for search in (Sample(), Sample(), Sample(0.5, top_k=3, seed=7)):
            client.generate("reverse", "ab", search=search).result()

    first, second, third = (each.sample for each in fake.tasks.requests)
    assert first.seed != second.seed
    assert max(first.seed, second.seed) < 1 << 63
    assert (third.temperature, third.top_k, third.seed) == (0.5, 3, 7)


def test_stopping_half_way_reaches_the_server(fake: FakeServer) -> None:
    with Client(fake.target, timeout_s=5) as client:
        with client.generate("stuck", "ab") as generation:
            assert next(generation).text == "b"
        assert fake.tasks.cancelled.wait(5)
        with pytest.raises(weir.Cancelled):
            generation.result()


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda c: c.tag("nobody", ["a"]), weir.NotFound, "unknown model 'nobody'"),
        (lambda c: c.tag("mute", ["a"]), weir.Internal, "results for 1 texts, got 0"),
        (lambda c: c.tag("shouts", "a b"), weir.UsageError, "put it into a list"),
        (lambda c: c.classify_text("mute", ["a"]), weir.Internal, "results for 1 texts"),
        (lambda c: c.classify_text("moods", ["a"], top=0), weir.UsageError, "top: expected 1"),
        (lambda c: c.forecast("mute", [1.0]), weir.Internal, "expected a ForecastResponse"),
        (lambda c: c.forecast("ragged", [1]), weir.Internal, "results for 3 upper bounds, got 2"),
        (lambda c: c.forecast("rising", [[1.0]]), weir.UsageError, "series: expected a row of"),
        (lambda c: c.forecast("rising", {"a": ["b"]}), weir.UsageError, "column 'a': expected num"),
        (lambda c: c.forecast("rising", [1], horizon=-1), weir.UsageError, "horizon: expected 0"),
        (lambda c: c.generate("nobody", "a").result(), weir.NotFound, "unknown model 'nobody'"),
        (lambda c: c.generate("short", "a").result(), weir.Internal, "a result at the end"),
        (lambda c: c.generate("mute", "a").result(), weir.Internal, "a token or a result"),
        (lambda c: c.generate("reverse", "a", n_best=-1), weir.UsageError, "generate: "),
        (
            lambda c: c.generate("reverse", "a", search=Sample(seed=-1)),
            weir.UsageError,
            "generate: ",
        ),
    ],
    ids=lambda value: "" if callable(value) else str(value)[:20],
)
def test_what_fails_raises_its_leaf(
    both: Both, ask: Ask, error: type[weir.WeirError], message: str
) -> None:
    with pytest.raises(error, match=message):
        both(ask)


@pytest.mark.parametrize("text", ["caf\udce9", ["a", "\ud800"], 5, [5]], ids=repr)
def test_what_is_no_text_is_a_mistake_of_the_caller(both: Both, text: Any) -> None:
    for ask in (
        lambda client: client.tag("shouts", [text]),
        lambda client: client.generate("reverse", text),
    ):
        with pytest.raises(weir.UsageError, match="expected a text or a list of its tokens"):
            both(ask)
