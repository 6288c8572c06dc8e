import json

import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer


def test_models_are_listed_with_all_their_versions(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "--target", fake.target)

    lines = [line.rstrip() for line in done.out.splitlines()]
    assert done.code == 0
    assert lines[1].split() == [
        "version",
        "state",
        "provider",
        "since",
        "parity",
        "golden",
        "batch",
        "labels",
    ]
    assert lines[2] == "good  image-classification"
    assert lines[3].split()[:2] == ["3", "UNAVAILABLE"] and lines[3].endswith("canary, next")
    assert lines[4] == "    golden.npz: logits: expected [1 2], got 7"
    assert lines[5].split()[:5] == ["2", "*", "READY", "cpu", "2x1"]
    assert lines[5].split()[-4:] == ["2.5e-06", "0", "no", "stable"]
    assert lines[6] == "    not batched: output 'y' [-1] has no first axis of any size"
    assert lines[7] == "    not served, as no tensor: maps: seq(map(int64,tensor(float)))"
    assert lines[8] == "  on disk, not loaded: 1"
    assert lines[-4:] == [
        "away",
        "           NOT LOADED",
        "  on disk, not loaded: 7",
        "provider: with threads of an operator x batches at the same time",
    ]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_reason_stays_on_its_line(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    reason = "because " * 40 + "[of] that"
    fake.models.listing.models[0].versions[0].reason = reason

    assert f"    {reason}\n" in weir("models", "--target", fake.target).out


def test_a_reason_of_several_lines_is_indented(weir: Weir, fake: FakeServer) -> None:
    fake.models.listing.models[1].versions[0].reason = "first\n  second"

    done = weir("models", "--target", fake.target)

    assert "\n    first\n      second\n" in done.out


def test_an_error_in_versions_toml_is_listed_once(weir: Weir, fake: FakeServer) -> None:
    good = fake.models.listing.models[0]
    reason = "versions.toml: policy: expected \"all\", got 'al'"
    for version in good.versions:
        version.reason = reason

    done = weir("models", "--target", fake.target)

    assert done.out.count(reason) == 1
    assert f"good  image-classification\n  {reason}\n  3 " in done.out


@pytest.mark.parametrize(
    ("option", "kept"), [((), 0), (("--ready",), 3)], ids=["empty", "none ready"]
)
def test_a_list_of_nothing_says_so(
    weir: Weir, fake: FakeServer, option: tuple[str, ...], kept: int
) -> None:
    for model in fake.models.listing.models:
        for version in model.versions:
            version.state = "UNAVAILABLE"
    del fake.models.listing.models[kept:]

    listed = weir("models", *option, "--target", fake.target)
    read = weir("models", *option, "--json", "--target", fake.target)

    what = "no models that are ready at" if option else "no models at"
    assert (listed.code, listed.out) == (0, f"{what} {fake.target}\n")
    assert (read.code, read.out) == (0, "[]\n")


def test_a_listing_fits_eighty_columns(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "--target", fake.target)

    assert max(map(len, done.out.splitlines())) <= 80


def test_models_can_be_read_by_a_program(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "--json", "--target", fake.target)

    listed = json.loads(done.out)
    assert [(one["name"], one["version"]) for one in listed] == [
        ("good", "3"),
        ("good", "2"),
        ("flop", "1"),
        ("away", ""),
    ]
    assert listed[1] == {
        "name": "good",
        "task": "image-classification",
        "version": "2",
        "answers": True,
        "labels": ["stable"],
        "state": "READY",
        "reason": "",
        "provider": "cpu",
        "since": "2026-11-18T11:06:40.250000+00:00",
        "parity": 2.5e-06,
        "golden": 0.0,
        "is_batched": False,
        "batching_reason": "output 'y' [-1] has no first axis of any size",
        "unserved_outputs": ["maps: seq(map(int64,tensor(float)))"],
        "threads": 2,
        "instances": 1,
        "not_loaded": ["1"],
    }


def test_only_ready_versions_are_listed_with_the_option(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "--ready", "--json", "--target", fake.target)

    assert [(one["name"], one["version"]) for one in json.loads(done.out)] == [("good", "2")]


def test_another_server_lists_its_index(weir: Weir, fake: FakeServer) -> None:
    fake.models.is_weir = False

    shown = weir("models", "--target", fake.target)
    ready = weir("models", "--ready", "--json", "--target", fake.target)

    assert "  2        UNAVAILABLE\n    no graph\n" in shown.out and "echo\n" in shown.out
    (echo,) = json.loads(ready.out)
    assert (echo["name"], echo["version"], echo["state"]) == ("echo", "1", "READY")
    assert echo["since"] is None and echo["answers"] is None


def test_an_option_before_a_subcommand_is_refused(weir: Weir, fake: FakeServer) -> None:
    done = weir("models", "--target", fake.target, "load", "good")

    assert done.code == 2 and "--target: expected behind load" in done.err
    assert fake.models.asked == []
