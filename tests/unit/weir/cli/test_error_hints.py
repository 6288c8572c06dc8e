from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer

DIGITS = ("--data", "digits")
TENSOR = ("--input", "[[1, 2]]")


@pytest.mark.parametrize("verb", ["tag", "classify-text", "generate", "forecast"])
def test_a_model_for_another_verb_suggests_that_verb(
    weir: Weir, fake: FakeServer, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "sales.csv").write_text("sales\n1\n2\n")
    what = tmp_path / "sales.csv" if verb == "forecast" else "a text"

    done = weir(verb, what, "--model", "good", "--target", fake.target)

    assert done.code == 1
    assert done.err == "weir: model 'good' is for image-classification: use `weir classify`\n"


def test_pictures_for_a_text_model_suggest_its_verb(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    fake.models.listing.models[0].task = "tagging"
    (tmp_path / "a.png").write_bytes(b"four")

    done = weir("classify", tmp_path, "--model", "good", "--target", fake.target)

    assert done.err.startswith("weir: model 'good' is for tagging: use `weir tag`")


@pytest.mark.parametrize("task", ["tagging", "other", ""])
def test_a_refusal_for_another_reason_keeps_its_words(
    weir: Weir, fake: FakeServer, task: str
) -> None:
    fake.models.listing.models[0].task = task

    done = weir("tag", "a text", "--model", "good", "--target", fake.target)

    assert done.err == "weir: model 'good' is for something else\n"


def test_a_server_without_tasks_keeps_its_own_message(weir: Weir, fake: FakeServer) -> None:
    fake.models.is_weir = False

    done = weir("tag", "a text", "--model", "good", "--target", fake.target)

    assert done.err == "weir: model 'good' is for something else\n"


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "nobody", *TENSOR),
        ("bench", "nobody", "--requests", "1"),
        ("evaluate", "nobody", *DIGITS),
        ("tag", "a text", "--model", "nobody"),
        ("generate", "a text", "--model", "nobody"),
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_model_lists_the_models_of_the_server(
    weir: Weir, fake: FakeServer, command: tuple[str, ...]
) -> None:
    done = weir(*command, "--target", fake.target)

    assert done.code == 1
    assert done.err == "weir: unknown model 'nobody'; there are away, flop, good\n"


def test_what_is_known_and_not_found_keeps_its_words(weir: Weir, fake: FakeServer) -> None:
    fake.models.listing.models.add(name="nobody")

    done = weir("infer", "nobody", *TENSOR, "--target", fake.target)

    assert done.err == "weir: unknown model 'nobody'\n"


def test_a_server_without_a_model_list_keeps_its_own_message(weir: Weir, fake: FakeServer) -> None:
    fake.models.is_weir = False

    done = weir("infer", "nobody", *TENSOR, "--target", fake.target)

    assert done.err == "weir: unknown model 'nobody'\n"


def test_a_server_of_many_models_does_not_fill_the_screen(weir: Weir, fake: FakeServer) -> None:
    for number in range(1000):
        fake.models.listing.models.add(name=f"model-{number}")

    done = weir("infer", "nobody", *TENSOR, "--target", fake.target)

    assert "there are away, flop, good, model-0, model-1," in done.err
    assert len(done.err) < 400 and done.err.endswith(" …\n")
