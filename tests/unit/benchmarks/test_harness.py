import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.lib import harness
from benchmarks.lib.harness import Rival, Run, Target
from benchmarks.lib.servers import WEIR, Server

SERVER = Server(pid=1, target="", metrics="", counters=WEIR)


def run(rival: str, number: int, value: float, case: str = "busy") -> Run:
    return Run(rival, case, number, {"calls_per_s": value})


def test_rivals_take_turns_and_never_run_at_the_same_time() -> None:
    seen: list[str] = []

    @contextmanager
    def start(name: str) -> Iterator[Server]:
        seen.append(f"start {name}")
        yield SERVER
        seen.append(f"stop {name}")

    def measure(rival: Rival, _: Server) -> Iterator[tuple[str, Mapping[str, float]]]:
        yield "busy", {"calls_per_s": len(rival.name)}

    rivals = [Rival("a", lambda: start("a")), Rival("bb", lambda: start("bb"))]
    runs = harness.take_turns(rivals, 2, measure)

    assert seen == ["start a", "stop a", "start bb", "stop bb"] * 2
    assert [(each.rival, each.round) for each in runs] == [("a", 0), ("bb", 0), ("a", 1), ("bb", 1)]
    assert [each.figures["calls_per_s"] for each in runs] == [1, 2, 1, 2]


def test_a_spread_is_the_median_between_the_least_and_the_most_of_that_rival_and_case() -> None:
    runs = [run("a", 0, 5), run("a", 1, 1), run("a", 2, 3), run("b", 0, 9), run("a", 0, 7, "idle")]

    found = harness.spread(runs, "a", "busy", "calls_per_s")

    assert (found.median, found.least, found.most) == (3, 1, 5)
    assert found.text() == "3 (1-5)"


def test_a_ratio_compares_within_a_round() -> None:
    # The machine is twice as slow in the second round: the ratio does not show it.
    runs = [run("a", 0, 40), run("b", 0, 10), run("a", 1, 20), run("b", 1, 5)]

    found = harness.ratio(runs, "calls_per_s", case="busy", of="a", to="b")

    assert (found.median, found.least, found.most) == (4, 4, 4)


def test_a_ratio_counts_the_rounds_in_which_both_were_measured() -> None:
    runs = [run("a", 0, 40), run("b", 0, 10), run("a", 1, 20)]

    assert harness.ratio(runs, "calls_per_s", case="busy", of="a", to="b").most == 4


def test_a_target_is_judged_by_the_median_of_the_rounds() -> None:
    runs = [run("a", 0, 12), run("b", 0, 10), run("a", 1, 20), run("b", 1, 10)]
    faster = Target("calls_per_s", "busy", "a", "b", 1.5)
    slower = replace(faster, at_least=False)
    unmeasured = replace(faster, case="idle")

    found = harness.judged(runs, [faster, slower, unmeasured])

    assert [(target.text(), harness.verdict(target, each)) for target, each in found] == [
        ("≥ 1.5", "met"),
        ("≤ 1.5", "not met"),
    ]


def test_appended_rounds_follow_the_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    harness.write(file, {}, [run("a", 0, 5), run("a", 1, 6)])

    runs = harness.appended(harness.earlier(file), [run("a", 0, 7)])

    assert [each.round for each in runs] == [0, 1, 2]
    assert harness.earlier(tmp_path / "absent.json") == []


def test_everything_measured_is_written_down(tmp_path: Path) -> None:
    harness.write(tmp_path / "all.json", {"machine": "mine"}, [run("a", 0, 5)])

    written = json.loads((tmp_path / "all.json").read_text())

    assert written["machine"] == "mine"
    assert written["runs"] == [
        {"rival": "a", "case": "busy", "round": 0, "figures": {"calls_per_s": 5}}
    ]


def test_nothing_is_written_without_a_path() -> None:
    harness.write(None, {}, [])


@pytest.mark.parametrize("flag", ["--json", "--picture", "--work"])
def test_flags_of_files_take_paths(flag: str) -> None:
    given = harness.arguments("", rounds=3).parse_args([flag, "there"])

    assert getattr(given, flag.removeprefix("--")) == Path("there")
