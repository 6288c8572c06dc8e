"""One source, and the searches it begins."""

import pytest

from tests.unit.server.generation import toys
from weir.server.generation.beam_search import Beam
from weir.server.generation.sampling import Answer, Draw, Path, Search


@pytest.mark.parametrize(
    ("search", "kinds"),
    [(Search(), [Path]), (Search(width=3, best=2), [Beam]), (Search(best=3, draw=Draw()), [Path] * 3)],
    ids=["greedy", "beam", "samples"],
)  # fmt: skip
def test_slots_of_a_search_are_those_its_row_takes(search: Search, kinds: list[type]) -> None:
    searches = toys.row([4], search).searches(toys.END)

    assert [type(each) for each in searches] == kinds
    assert sum(each.slots for each in searches) == search.slots


def test_row_has_ended_with_its_last_search_and_its_best_answer_is_first() -> None:
    row = toys.row([4], Search(best=3, draw=Draw()))
    row.searches(toys.END)
    cut, poor, good = (Answer((), 0.0, -1, False), Answer((), 0.0, -5, True), Answer((), 0.0, -2, True))  # fmt: skip

    ended = [row.found([answer]) for answer in (cut, poor, good)]

    assert ended == [False, False, True]
    assert row.answers == [good, poor, cut]
