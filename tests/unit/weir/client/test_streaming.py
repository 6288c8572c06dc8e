import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.client.errors import Internal, NotFound, Unavailable
from weir.client.results import Answer
from weir.client.streaming import InOrder


def answer(number: int) -> Answer:
    return Answer(model="m", version="1", id=str(number), outputs={})


@given(st.permutations(range(8)))
def test_answers_come_out_in_order_however_they_come_in(arrivals: list[int]) -> None:
    order = InOrder()

    out = [one.id for number in arrivals for one in order.put(str(number), answer(number))]

    assert out == [str(number) for number in range(8)]
    order.check_complete(8, all_sent=True)


def test_a_failure_waits_for_its_turn() -> None:
    order = InOrder()

    assert list(order.put("1", NotFound("gone"))) == []
    with pytest.raises(NotFound):
        list(order.put("0", answer(0)))


def test_a_failure_without_a_request_raises_at_once() -> None:
    with pytest.raises(NotFound):
        list(InOrder().put("", NotFound("gone")))


@pytest.mark.parametrize("request_id", ["", "x", "-1", "0"], ids=repr)
def test_an_unexpected_answer_is_internal(request_id: str) -> None:
    order = InOrder()
    list(order.put("0", answer(0)))

    with pytest.raises(Internal, match="not waited for"):
        list(order.put(request_id, answer(0)))


@pytest.mark.parametrize(("sent", "all_sent"), [(2, True), (1, False)])
def test_a_stream_that_ends_early_is_unavailable(sent: int, *, all_sent: bool) -> None:
    order = InOrder()
    list(order.put("0", answer(0)))

    with pytest.raises(Unavailable, match="after 1 answers"):
        order.check_complete(sent, all_sent=all_sent)
