import json
from pathlib import Path

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer

QUICK = ["-n", 30, "-c", 3, "--warmup", "0s"]


def test_a_load_is_measured_and_shown(weir: Weir, fake: FakeServer) -> None:
    done = weir("bench", "echo", *QUICK, "--target", fake.target)

    assert done.code == 0
    assert "calls answered" in done.out and "30" in done.out and "latency p99.9" in done.out


def test_the_result_is_written_as_json(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    out = tmp_path / "result.json"

    weir(
        "bench", "echo", *QUICK, "--rows", 5, "--rate", 500, "--json", out, "--target", fake.target
    )

    record = json.loads(out.read_text())
    assert record["result"]["answered"] == 30 and record["load"]["rows"] == 5
    assert record["load"]["rate_per_s"] == 500 and record["result"]["lateness_p99_s"] >= 0


def test_json_alone_is_printed_on_request(weir: Weir, fake: FakeServer) -> None:
    done = weir("bench", "echo", *QUICK, "-i", "[[1, 2]]", "--json", "-", "--target", fake.target)

    assert json.loads(done.out)["load"]["rows"] == 1


def test_what_cannot_be_done_is_one_line(weir: Weir, fake: FakeServer, nobody: str) -> None:
    unknown = weir("bench", "nobody", *QUICK, "--target", fake.target)
    refused = weir("bench", "echo", "-c", 0, "--target", fake.target)
    unreachable = weir("bench", "echo", *QUICK, "--target", nobody)

    assert (unknown.code, refused.code, unreachable.code) == (1, 2, 3)
    for done in (unknown, refused, unreachable):
        assert done.err.startswith("weir: ") and len(done.err.splitlines()) == 1


def test_failed_calls_are_reported_with_exit_code_1(weir: Weir, fake: FakeServer) -> None:
    done = weir("bench", "flaky", *QUICK, "--json", "-", "--target", fake.target)

    assert done.code == 1
    assert done.err == "weir: of 30 calls failed: UNAVAILABLE 15\n"
    result = json.loads(done.out)["result"]
    assert result["answered"] == 15
    assert result["messages"] == {"UNAVAILABLE": "every second call"}


def test_a_message_of_failed_calls_is_shown(weir: Weir, fake: FakeServer) -> None:
    done = weir("bench", "flaky", *QUICK, "--target", fake.target)

    assert "UNAVAILABLE, for instance: every second call\n" in done.out
