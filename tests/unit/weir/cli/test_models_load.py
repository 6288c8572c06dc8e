import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_models import SINCE_MS
from tests.unit.weir.fake_server import FakeServer
from weir.protocol import models_pb2 as models_pb


@pytest.mark.parametrize("verb", ["load", "unload", "reload"])
def test_each_model_gets_its_own_result(weir: Weir, fake: FakeServer, verb: str) -> None:
    done = weir("models", verb, "flop", "good", "nobody", "busy", "--target", fake.target)

    assert done.code == 1
    assert done.out == f"good: nothing to {verb}; 2 (stable) answers\n"
    assert done.err.splitlines() == [
        "weir: flop: version 1: no graph",
        "weir: nobody: unknown model 'nobody'; there are away, flop, good",
        "weir: busy: busy: is being loaded",
        f"weir: 3 of 4 models could not be {verb}ed",
    ]


@pytest.mark.parametrize(
    ("verb", "serving", "told"),
    [
        ("load", {"2": 0, "4": 1}, "loaded 4; 4 answers; also 2 (stable)"),
        ("load", {"4": 1}, "loaded 4, unloaded 2; 4 answers"),
        ("load", {"2": 0}, "nothing to load; 2 (stable) answers"),
        ("reload", {"2": 1}, "reloaded 2; 2 (stable) answers"),
        ("unload", {}, "unloaded 2; none answers"),
    ],
    ids=["beside", "instead", "nothing", "anew", "unloaded"],
)
def test_the_change_and_the_default_version_are_printed(
    weir: Weir, fake: FakeServer, verb: str, serving: dict[str, int], told: str
) -> None:
    fake.models.after = _holding(serving)

    done = weir("models", verb, "good", "--target", fake.target)

    assert (done.code, done.out, done.err) == (0, f"good: {told}\n", "")


def test_a_server_without_a_model_list_reports_success(weir: Weir, fake: FakeServer) -> None:
    fake.models.is_weir = False

    done = weir("models", "load", "good", "--target", fake.target)

    assert (done.code, done.out, done.err) == (0, "good: loaded\n", "")


def test_a_model_that_is_named_twice_is_loaded_once(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "reload", "good", "flop", "good", "flop", "--target", fake.target)

    assert [request.model_name for request in fake.models.asked] == ["good", "flop"]
    assert done.err.endswith("weir: 1 of 2 models could not be reloaded\n")


def test_disabled_model_control_is_reported_once(weir: Weir, fake: FakeServer) -> None:
    fake.models.takes_control = False

    loaded = weir("models", "load", "good", "flop", "--target", fake.target)
    labelled = weir("models", "label", "good", "stable=1", "--target", fake.target)

    told = (
        "weir: the server takes no control calls: "
        "start it with `weir serve --model-control explicit`"
    )
    assert (loaded.code, loaded.out, loaded.err) == (1, "", f"{told}\n")
    assert (labelled.code, labelled.err) == (1, f"{told}, or give --models\n")


def _holding(serving: dict[str, int]) -> models_pb.ListModelsResponse:
    """The model `good` with these versions, each later than in the fake's list by milliseconds."""
    answer = models_pb.ListModelsResponse()
    good = answer.models.add(name="good", answering=max(serving, default=""))
    for version, later_ms in serving.items():
        labels = ["stable"] if version == "2" else []
        since_ms = SINCE_MS + later_ms
        good.versions.add(version=version, labels=labels, state="READY", since_ms=since_ms)
    good.versions.add(version="3", state="UNAVAILABLE", reason="no graph", since_ms=SINCE_MS)
    return answer
