import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer
from weir.protocol import models_pb2 as models_pb


def test_the_exit_code_reports_health(weir: Weir, fake: FakeServer, nobody: str) -> None:
    serving = weir("health", "--target", fake.target)
    unknown = weir("health", "--service", "nobody", "--target", fake.target)
    fake.health = ["NOT_SERVING"]
    not_serving = weir("health", "--service", "echo", "--target", fake.target)
    assert not_serving.err == ""
    unreachable = weir("health", "--target", nobody)

    assert (serving.code, serving.out) == (0, "SERVING\n")
    assert (unknown.code, unknown.out) == (1, "SERVICE_UNKNOWN\n")
    assert (not_serving.code, not_serving.out) == (3, "NOT_SERVING\n")
    assert unreachable.code == 3 and unreachable.out.startswith("UNREACHABLE")


def test_a_watch_prints_each_change_and_ends_with_the_last(weir: Weir, fake: FakeServer) -> None:
    done = weir("health", "--watch", "--target", fake.target)

    assert (done.code, done.out) == (0, "NOT_SERVING\nSERVING\n")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("UNAVAILABLE", "weir: no model is ready: see `weir models`\n"),
        ("LOADING", "weir: the models are loading: see `weir models`\n"),
        ("READY", ""),
        (None, "weir: the server has no model\n"),
    ],
)
def test_a_server_that_does_not_serve_is_explained(
    weir: Weir, fake: FakeServer, state: str | None, told: str
) -> None:
    fake.health = ["NOT_SERVING"]
    listing = models_pb.ListModelsResponse()
    if state is not None:
        listing.models.add(name="m").versions.add(version="1", state=state)
    fake.models.listing = listing

    done = weir("health", "--target", fake.target)

    assert (done.code, done.out, done.err) == (3, "NOT_SERVING\n", told)


def test_a_server_that_is_not_weir_is_not_explained(weir: Weir, fake: FakeServer) -> None:
    fake.health = ["NOT_SERVING"]
    fake.models.is_weir = False

    assert weir("health", "--target", fake.target).err == ""
