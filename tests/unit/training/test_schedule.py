"""The learning rate over a run."""

import pytest

from weir.training.schedule import learning_rate


def rates(steps: int, warmup_share: float) -> list[float]:
    return [
        learning_rate(step, steps=steps, peak=2.0, warmup_share=warmup_share)
        for step in range(steps)
    ]


def test_rises_in_a_line_to_the_peak_and_falls_to_nearly_nothing() -> None:
    curve = rates(100, 0.1)

    assert curve[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(curve) == curve[9] == 2.0
    assert curve[9:] == sorted(curve[9:], reverse=True)
    assert curve[54] == pytest.approx(1.0, abs=0.03)
    assert 0.0 < curve[-1] < 0.002


@pytest.mark.parametrize("steps", [1, 2, 3], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99], ids=str)
def test_the_shortest_runs_have_a_rate_above_zero(steps: int, share: float) -> None:
    assert all(0.0 < rate <= 2.0 for rate in rates(steps, share))
