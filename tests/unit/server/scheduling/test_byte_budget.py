"""The budget of bytes in flight."""

import threading

import pytest

from weir.server.errors import Overloaded
from weir.server.scheduling.byte_budget import ByteBudget


def test_budget_refuses_what_does_not_fit_and_says_why() -> None:
    budget = ByteBudget("model 'a'", 100)
    budget.take(60)

    with pytest.raises(Overloaded, match=r"model 'a': requests of 60 bytes are in flight"):
        budget.take(41)
    budget.take(40)

    assert (budget.held_bytes, budget.refused) == (100, 1)


def test_empty_budget_takes_a_request_of_any_size() -> None:
    budget = ByteBudget("model 'a'", 100)

    budget.take(1000)
    budget.give_back(1000)

    assert budget.held_bytes == 0


def test_models_share_the_budget_of_the_server() -> None:
    whole = ByteBudget("the server", 100)
    a, b = (ByteBudget(f"model {name!r}", 80, whole) for name in "ab")
    a.take(70)

    with pytest.raises(Overloaded, match="the server: requests of 70 bytes"):
        b.take(40)
    a.give_back(70)
    b.take(40)

    assert (whole.held_bytes, a.held_bytes, b.held_bytes, whole.refused) == (40, 0, 40, 1)


def test_budget_of_many_threads_adds_up() -> None:
    whole = ByteBudget("the server")
    budgets = [ByteBudget(str(number), None, whole) for number in range(4)]

    def work(budget: ByteBudget) -> None:
        for _ in range(2000):
            budget.take(3)
            budget.give_back(3)

    threads = [threading.Thread(target=work, args=(budget,)) for budget in budgets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [budget.held_bytes for budget in (whole, *budgets)] == [0] * 5
