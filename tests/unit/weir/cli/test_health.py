from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer


def test_the_exit_code_reports_health(weir: Weir, fake: FakeServer, nobody: str) -> None:
    serving = weir("health", "--target", fake.target)
    unknown = weir("health", "--service", "nobody", "--target", fake.target)
    fake.health = ["NOT_SERVING"]
    not_serving = weir("health", "--service", "echo", "--target", fake.target)
    unreachable = weir("health", "--target", nobody)

    assert (serving.code, serving.out) == (0, "SERVING\n")
    assert (unknown.code, unknown.out) == (1, "SERVICE_UNKNOWN\n")
    assert (not_serving.code, not_serving.out) == (3, "NOT_SERVING\n")
    assert unreachable.code == 3 and unreachable.out.startswith("UNREACHABLE")


def test_a_watch_prints_each_change_and_ends_with_the_last(weir: Weir, fake: FakeServer) -> None:
    done = weir("health", "--watch", "--target", fake.target)

    assert (done.code, done.out) == (0, "NOT_SERVING\nSERVING\n")
