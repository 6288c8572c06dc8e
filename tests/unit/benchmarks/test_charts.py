from pathlib import Path

import pytest

from benchmarks.lib import charts
from benchmarks.lib.harness import Run

PNG = b"\x89PNG"


def test_bars_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    # Nobody asked the second server for the first case.
    runs = [
        Run("weir", "one", 0, {"rate": 3.0, "p50": 1.0}),
        Run("weir", "many", 0, {"rate": 9.0, "p50": 4.0}),
        Run("mlserver", "many", 0, {"rate": 1.0, "p50": 40.0}),
    ]

    charts.bars(
        tmp_path / "bars.png",
        runs,
        rivals=["weir", "mlserver"],
        cases=["one", "many"],
        figures={"rate": "calls a second", "p50": "p50, ms"},
    )

    assert (tmp_path / "bars.png").read_bytes().startswith(PNG)


def test_curves_are_drawn_also_of_servers_without_a_point(tmp_path: Path) -> None:
    runs = [Run("steps", "load 1", number, {"rate": 10.0, "p50": 2.0}) for number in range(3)]

    charts.curves(
        tmp_path / "curves.png",
        {"pronounce": runs},
        rivals=["steps", "one"],
        x="rate",
        figures={"p50": "-"},
        labels=("calls a second", "ms"),
    )

    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("is_logarithmic", [False, True], ids=["linear", "logarithmic"])
def test_growth_is_drawn_over_the_measured_sizes(tmp_path: Path, *, is_logarithmic: bool) -> None:
    runs = [
        Run("weir", str(models), number, {"models": models, "ready_s": 0.1 * models})
        for models in (1, 10, 100)
        for number in range(2)
    ]

    charts.growth(
        tmp_path / "growth.png",
        runs,
        rival="weir",
        x=("models", "models"),
        figures={"ready_s": "s until ready"},
        is_logarithmic=is_logarithmic,
    )

    assert (tmp_path / "growth.png").read_bytes().startswith(PNG)


def test_goodput_is_drawn_of_what_was_measured(tmp_path: Path) -> None:
    runs = [
        Run("before", "3 x", 0, {"offered_per_s": 3.0, "goodput_per_s": 0.07}),
        Run("weir", "3 x", 0, {"offered_per_s": 3.0, "goodput_per_s": 0.95}),
        Run("weir", "0.5 x", 0, {"offered_per_s": 0.5, "goodput_per_s": 0.5}),
    ]

    charts.goodput(tmp_path / "goodput.png", {"slow": runs})

    assert (tmp_path / "goodput.png").read_bytes().startswith(PNG)
