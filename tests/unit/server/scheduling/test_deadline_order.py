from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.server.scheduling.deadline_order import DeadlineOrder


@dataclass(eq=False)
class Waiting:
    queued_s: float
    limit_s: float
    rows: int = 1
    work: int = 1
    deadline_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline_s = self.queued_s + self.limit_s


def order_of(*requests: Waiting) -> DeadlineOrder[Waiting]:
    order: DeadlineOrder[Waiting] = DeadlineOrder()
    for request in requests:
        order.add(request)
    return order


@pytest.mark.parametrize("limit_s", [0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 300])
def test_equal_limits_keep_the_order_of_arrival_however_grpc_rounds_them(limit_s: float) -> None:
    roundings = [1.0, 1.01, 0.99, 1.005, 0.985]
    requests = [Waiting(0.001 * n, limit_s * r) for n, r in enumerate(roundings)]

    assert list(order_of(*requests)) == requests


def test_a_shorter_limit_goes_first() -> None:
    patient, urgent = Waiting(0.0, 60.0), Waiting(1.0, 1.0)

    assert list(order_of(patient, urgent)) == [urgent, patient]
    assert list(order_of(patient, urgent).by_arrival()) == [patient, urgent]


@given(
    limit_s=st.floats(0.001, 86_400.0),
    others=st.lists(st.floats(0.001, 86_400.0), max_size=8),
)
def test_each_is_first_before_its_own_deadline(limit_s: float, others: list[float]) -> None:
    """Later arrivals do not starve it."""
    old = Waiting(0.0, limit_s)

    order = order_of(old, *(Waiting(0.999 * limit_s, each) for each in others))

    assert next(iter(order)) is old


def test_rows_and_work_are_counted_in_and_out() -> None:
    first, second = Waiting(0.0, 1.0, rows=2, work=20), Waiting(0.0, 60.0, rows=3, work=3)
    order = order_of(first, second)

    assert (len(order), order.rows, order.work) == (2, 5, 23)
    assert first in order
    assert order.remove(first)
    assert not order.remove(first)
    assert first not in order
    assert (len(order), order.rows, order.work) == (1, 3, 3)
    assert order.remove(second)
    assert not order and list(order) == []


def test_requests_of_several_limits_are_removed_at_once() -> None:
    requests = [
        Waiting(0.1 * n, limit_s, rows=n, work=10 * n)
        for n, limit_s in enumerate([1.0, 60.0, 1.0, 60.0, 0.1, 1.0])
    ]
    order = order_of(*requests)

    order.remove_all(requests[:4])

    assert list(order.by_arrival()) == requests[4:]
    assert (len(order), order.rows, order.work) == (2, 9, 90)
    order.remove_all(requests[4:])
    assert not order
    assert (len(order), order.rows, order.work) == (0, 0, 0)
    order.remove_all([])
    order.add(requests[0])
    assert list(order) == requests[:1]


def test_oldest_is_found_among_all_limits() -> None:
    order = order_of(Waiting(3.0, 60.0), Waiting(2.0, 1.0), Waiting(4.0, 0.1))

    assert order.oldest_s() == 2.0
    assert {each.queued_s for each in order.unordered()} == {2.0, 3.0, 4.0}


def test_rows_of_equal_limits_all_go_before_a_new_request() -> None:
    order = order_of(*(Waiting(0.01 * n, 1.0, rows=2, work=10) for n in range(8)))

    assert order.ahead(Waiting(0.08, 1.0)) == (16, 80)


def test_patient_rows_go_behind_an_urgent_one_but_for_their_share() -> None:
    patient = [Waiting(0.0, 60.0) for _ in range(100)]
    urgent = [Waiting(0.5, 1.0) for _ in range(30)]
    order = order_of(*patient, *urgent)

    assert order.ahead(Waiting(0.6, 1.0)) == pytest.approx((40, 40))
    assert order.ahead(Waiting(0.6, 60.0)) == (130, 130)


def test_patient_rows_that_have_waited_long_go_before_an_urgent_one() -> None:
    """The class of 60 s begins at 43.5 s, that of 1 s at 0.68 s."""
    patient = [Waiting(float(n), 60.0) for n in range(50)]
    urgent = [Waiting(49.9, 1.0) for _ in range(5)]
    order = order_of(*patient, *urgent)
    newcomer = Waiting(50.0, 1.0)

    rows, _ = order.ahead(newcomer)

    order.add(newcomer)
    before = list(order).index(newcomer)
    assert before == pytest.approx(12, abs=1)
    assert before <= rows <= 1.5 * before
