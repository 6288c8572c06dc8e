import pytest

from tests.weir.commands.shell import Weir
from tests.weir.fake_server import FakeServer


def test_labels_are_set_and_removed(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "label", "good", "stable=2", "canary=", "--target", fake.target)

    assert (done.code, done.out) == (0, "good: stable -> 2\ngood: canary removed\n")
    first, second = fake.models.asked
    assert (first.label, first.version) == ("stable", 2)
    assert (second.label, second.version) == ("canary", 0)


def test_a_label_that_cannot_be_set_is_told_beside_the_others(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "label", "good", "next=9", "stable=2", "--target", fake.target)

    assert (done.code, done.out) == (1, "good: stable -> 2\n")
    assert "weir: next: good: no version 9" in done.err


@pytest.mark.parametrize("text", ["stable", "=2", "2=1", "a b=1", "stable=0", "stable=x", "a=-1"])
def test_what_is_no_assignment_is_refused(weir: Weir, fake: FakeServer, text: str) -> None:
    done = weir("models", "label", "good", "stable=2", text, "--target", fake.target)

    assert done.code == 2
    assert fake.models.asked == []
