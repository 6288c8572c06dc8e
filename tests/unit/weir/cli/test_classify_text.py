import json

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer


def test_classes_are_shown_as_a_table(weir: Weir, fake: FakeServer) -> None:
    done = weir("classify-text", "one two", "box", "--model", "moods", "--target", fake.target)

    assert done.code == 0
    assert "of 2 tokens" in done.out and "0.7500" in done.out
    (unknown,) = (line for line in done.out.splitlines() if "of 1 tokens" in line)
    assert unknown.count("box") == 2, "the text, and its token that was never seen"
    assert "│ 4 " in done.out, "a class without a label is told by its number"


def test_json_is_printed_with_the_option(weir: Weir, fake: FakeServer) -> None:
    done = weir(
        "classify-text", "a x", "--model", "moods", "--top", 1, "--json", "--target", fake.target
    )

    assert json.loads(done.out) == [
        {
            "text": "a x",
            "classes": [{"label": "of 2 tokens", "index": 3, "probability": 0.75}],
            "unknown": ["x"],
        }
    ]


def test_a_text_that_fails_is_named_and_the_others_are_answered(
    weir: Weir, fake: FakeServer
) -> None:
    done = weir("classify-text", "a", "too long", "--model", "moods", "--target", fake.target)

    assert done.code == 1 and "of 1 tokens" in done.out
    assert "weir: 1 of 2 texts could not be classified" in done.err
