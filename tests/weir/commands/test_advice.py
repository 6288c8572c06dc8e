from pathlib import Path

import pytest

from tests.weir.commands.shell import Weir
from tests.weir.fake_server import FakeServer


@pytest.mark.parametrize("verb", ["tag", "classify-text", "generate", "forecast"])
def test_a_model_for_another_verb_is_told_by_that_verb(
    weir: Weir, fake: FakeServer, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "sales.csv").write_text("sales\n1\n2\n")
    what = tmp_path / "sales.csv" if verb == "forecast" else "a text"

    done = weir(verb, what, "--model", "good", "--target", fake.target)

    assert done.code == 1
    assert (
        done.err == "weir: model 'good' is for image-classification: ask it with `weir classify`\n"
    )


def test_pictures_for_a_model_of_texts_are_told_its_verb(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    fake.models.listing.models[0].task = "tagging"
    (tmp_path / "a.png").write_bytes(b"four")

    done = weir("classify", tmp_path, "--model", "good", "--target", fake.target)

    assert done.err.startswith("weir: model 'good' is for tagging: ask it with `weir tag`")


@pytest.mark.parametrize("task", ["tagging", "other", ""])
def test_a_refusal_for_another_reason_keeps_its_words(
    weir: Weir, fake: FakeServer, task: str
) -> None:
    fake.models.listing.models[0].task = task

    done = weir("tag", "a text", "--model", "good", "--target", fake.target)

    assert done.err == "weir: model 'good' is for something else\n"


def test_a_server_that_cannot_say_has_its_own_words_told(weir: Weir, fake: FakeServer) -> None:
    fake.models.is_weir = False

    done = weir("tag", "a text", "--model", "good", "--target", fake.target)

    assert done.err == "weir: model 'good' is for something else\n"
