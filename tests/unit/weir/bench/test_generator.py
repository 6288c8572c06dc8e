import numpy as np
import pytest

import weir
from tests.unit.weir.fake_server import FakeServer
from weir.bench import generator
from weir.bench.plan import Plan
from weir.bench.tally import Tally
from weir.client import rpc


def plan(target: str, model: str = "echo", **changes: object) -> Plan:
    call = rpc.infer(rpc.infer_request(model, {"x": np.array([[3, 4]])}))
    load: dict[str, object] = {"concurrency": 4, "requests": 40, "warmup_s": 0.02, "timeout_s": 5.0}
    return Plan(target=target, path=call.path, body=call.body, **{**load, **changes})  # type: ignore[arg-type]


def check(tally: Tally, answered: int) -> None:
    assert len(tally.ends_s) == len(tally.latencies_s) == answered
    assert min(tally.latencies_s) > 0 and min(tally.ends_s) > 0


@pytest.mark.parametrize("connections", [1, 3])
def test_a_closed_loop_makes_so_many_calls(fake: FakeServer, connections: int) -> None:
    tally = generator.run_here(plan(fake.target, connections=connections))

    check(tally, 40)
    assert not tally.errors and not tally.lateness_s


def test_a_closed_loop_ends_after_its_time(fake: FakeServer) -> None:
    tally = generator.run_here(plan(fake.target, requests=None, duration_s=0.1))

    check(tally, len(tally.ends_s))
    assert max(end - took for end, took in zip(tally.ends_s, tally.latencies_s, strict=True)) < 0.1


def test_an_open_loop_makes_the_calls_that_are_due(fake: FakeServer) -> None:
    tally = generator.run_here(plan(fake.target, rate_per_s=400.0, connections=2))

    check(tally, 40)
    assert len(tally.lateness_s) == 40 and min(tally.lateness_s) >= 0


def test_a_request_that_is_refused_is_not_repeated(fake: FakeServer) -> None:
    with pytest.raises(weir.NotFound, match="nobody"):
        generator.run_here(plan(fake.target, model="nobody"))


def test_calls_that_fail_later_are_counted_by_status(fake: FakeServer) -> None:
    tally = generator.run_here(plan(fake.target, model="flaky", concurrency=1))

    assert tally.errors == {"UNAVAILABLE": 20}
    check(tally, 20)


def test_several_processes_share_the_calls(fake: FakeServer) -> None:
    check(generator.run(plan(fake.target), 2), 40)


def test_an_error_of_a_child_process_raises_here(fake: FakeServer) -> None:
    with pytest.raises(weir.NotFound, match="nobody"):
        generator.run(plan(fake.target, model="nobody"), 2)
