import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

import weir
from tests.unit.weir import fake_server
from tests.unit.weir.fake_server import FakeServer
from weir import AsyncClient

PAIR = np.array([[3, 4]])


def run(fake: FakeServer, steps: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncClient(fake.target, timeout_s=5) as client:
            await steps(client)

    asyncio.run(main())


def test_many_requests_are_answered_side_by_side(fake: FakeServer) -> None:
    async def steps(client: AsyncClient) -> None:
        answers = await asyncio.gather(*(client.infer("echo", PAIR + n) for n in range(50)))
        for n, answer in enumerate(answers):
            np.testing.assert_array_equal(answer["y"], PAIR + n)

    run(fake, steps)


def test_a_status_raises_its_leaf_with_the_servers_hint(fake: FakeServer) -> None:
    async def steps(client: AsyncClient) -> None:
        with pytest.raises(weir.ResourceExhausted, match="refused") as caught:
            await client.infer("refuse", PAIR, parameters={"status": "RESOURCE_EXHAUSTED"})
        assert caught.value.retry_after_s == 0.25

    run(fake, steps)


def test_cancelling_the_task_reaches_the_server(fake: FakeServer) -> None:
    async def steps(client: AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.infer("stuck", {"x": PAIR}), 0.2)
        assert await asyncio.to_thread(fake.cancelled.wait, 5)

    run(fake, steps)


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
def test_answers_of_a_stream_come_in_the_order_of_the_requests(fake: FakeServer, kind: str) -> None:
    plain = [PAIR + n for n in range(7)]

    async def asynchronous() -> AsyncIterator[np.ndarray]:
        for array in plain:
            yield array

    async def steps(client: AsyncClient) -> None:
        requests = plain if kind == "iterable" else asynchronous()
        answers = [answer async for answer in client.stream("echo", requests, in_flight=2)]
        assert [int(answer["y"][0, 0]) for answer in answers] == [3, 4, 5, 6, 7, 8, 9]

    run(fake, steps)


def test_what_the_callers_iterable_raises_reaches_the_caller(fake: FakeServer) -> None:
    async def requests() -> AsyncIterator[np.ndarray]:
        yield PAIR
        raise KeyError("mine")

    async def steps(client: AsyncClient) -> None:
        answers = client.stream("echo", requests())
        assert (await anext(answers))["y"].tolist() == PAIR.tolist()
        with pytest.raises(KeyError, match="mine"):
            await anext(answers)

    run(fake, steps)


def test_a_request_refused_on_a_stream_raises_its_leaf(fake: FakeServer) -> None:
    async def steps(client: AsyncClient) -> None:
        with pytest.raises(weir.NotFound, match="refused"):
            async for _ in client.stream("refuse", [PAIR, PAIR]):
                pass

    run(fake, steps)


def test_questions_are_answered_as_by_the_other_client(fake: FakeServer) -> None:
    async def steps(client: AsyncClient) -> None:
        assert (await client.metadata("sum")).inputs[1].name == "b"
        assert (await client.config("echo")).config.name == "echo"
        assert (await client.statistics()).model_stats[0].inference_count == 3
        assert (await client.server_metadata()).name == "fake"
        assert len(await client.index()) == 2
        assert await client.is_live() and await client.is_ready()
        assert not await client.model_ready("nobody")
        assert await client.health() == "SERVING"
        assert [status async for status in client.watch()] == ["NOT_SERVING", "SERVING"]
        await client.wait_ready("echo")
        assert await client.classify("threes", [b"three"], top=1) == [
            [weir.Class(0.75, 3, "of 5 bytes")]
        ]
        assert [model.name for model in await client.models()] == ["good", "flop", "away"]
        assert (await client.server_info()).process_id == 4242
        await client.load("good", reload=True)
        await client.unload("good")
        await client.set_label("good", "stable", 2)
        with pytest.raises(weir.FailedPrecondition, match="no graph"):
            await client.load("flop")
        assert await client.rank("echo", np.array([[1, 9]]), top=1) == [[weir.Class(9.0, 1, "n1")]]

    run(fake, steps)
    assert len(fake.models.asked) == 4


FAILING: dict[str, Callable[[AsyncClient], Awaitable[object]]] = {
    "infer": lambda client: client.infer("nobody", {"x": PAIR}),
    "stream": lambda client: anext(client.stream("refuse", [PAIR])),
    "generate": lambda client: client.generate("nobody", "a").result(),
    "watch": lambda client: anext(client.watch("stuck", timeout_s=-1)),
    "broken answer": lambda client: client.infer("mute", PAIR),
}


@pytest.mark.parametrize("fail", FAILING.values(), ids=FAILING.keys())
def test_a_failed_call_of_any_kind_empties_the_metadata_cache(
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[AsyncClient], Awaitable[object]],
) -> None:
    async def steps(client: AsyncClient) -> None:
        await client.infer("echo", PAIR)
        monkeypatch.setitem(fake_server.MODELS, "echo", ["renamed"])
        await client.infer("echo", PAIR)
        with pytest.raises(weir.CallError):
            await fail(client)
        await client.infer("echo", PAIR)

    run(fake, steps)
    sent = [each.inputs[0].name for each in fake.requests if each.model_name == "echo"]
    assert sent == ["x", "x", "renamed"]


def test_both_clients_offer_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    # A coroutine is its own future.
    assert public(weir.Client) - public(AsyncClient) == {"submit"}
    assert public(AsyncClient) <= public(weir.Client)
