import json
from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir, standard_input
from tests.unit.weir.fake_server import FakeServer


def test_tags_are_shown_as_a_table(weir: Weir, fake: FakeServer) -> None:
    done = weir("tag", "HALLO xylophone [b]", "--model", "shouts", "--target", fake.target)

    assert done.code == 0
    loud, odd, bracketed = (line for line in done.out.splitlines() if "0.7500" in line)
    assert "HALLO" in loud and "LOUD" in loud and "never seen" not in loud
    assert "xylophone" in odd and "quiet" in odd and "never seen" in odd
    assert "[b]" in bracketed


def test_json_is_printed_with_the_option(weir: Weir, fake: FakeServer) -> None:
    done = weir("tag", "É x", "--model", "shouts", "--json", "--target", fake.target)

    assert "É" in done.out and done.err == ""
    (one,) = json.loads(done.out)
    assert one["text"] == "É x"
    assert one["tokens"] == [
        {"text": "É", "tag": "LOUD", "probability": 0.75, "is_unknown": False},
        {"text": "x", "tag": "quiet", "probability": 0.75, "is_unknown": True},
    ]


def test_texts_may_come_from_standard_input(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", standard_input("one\n\n  \r\ntwo thrée\r\n".encode()))

    done = weir("tag", "zero", "-", "--model", "shouts", "--json", "--target", fake.target)

    assert [each["text"] for each in json.loads(done.out)] == ["zero", "one", "two thrée"]


def test_nothing_on_standard_input_is_a_mistake_of_the_caller(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(b"\n"))

    done = weir("tag", "-", "--model", "shouts", "--target", fake.target)

    assert done.code == 2 and "expected a text, got none" in done.err


def test_the_only_model_need_not_be_named(weir: Weir, fake: FakeServer) -> None:
    """The index of the fake holds `echo`, which tags nothing."""
    done = weir("tag", "a", "--target", fake.target)

    assert done.err == "weir: unknown model 'echo'; there are away, flop, good\n"


def test_a_text_that_fails_is_named_and_the_others_are_answered(
    weir: Weir, fake: FakeServer
) -> None:
    done = weir("tag", "A", "too long", "--model", "shouts", "--target", fake.target)

    assert done.code == 1 and "LOUD" in done.out
    assert done.err.splitlines() == [
        "weir: too long: expected at most 1 tokens, got 2",
        "weir: 1 of 2 texts could not be tagged",
    ]


def test_what_is_wrong_with_every_text_is_said_once(weir: Weir, fake: FakeServer) -> None:
    done = weir("tag", "a", "b", "c", "--model", "nobody", "--target", fake.target)

    assert (
        done.code == 1 and done.err == "weir: unknown model 'nobody'; there are away, flop, good\n"
    )


def test_texts_that_are_not_utf8_are_refused(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(b"one\ncaf\xe9\n"))
    order = ["--model", "shouts", "--target", fake.target]

    piped, typed = weir("tag", "-", *order), weir("tag", "caf\udce9", *order)

    assert piped.code == typed.code == 2 and not fake.tasks.requests
    assert piped.err == "weir: standard input, line 2: expected UTF-8, got other bytes\n"
    assert typed.err == "weir: expected texts in UTF-8, got 'caf\\udce9'\n"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I do n't", ["I", "do", "n't"]),
        ("20 000\teuros\t", ["20 000", "euros"]),
        ("  a   b ", ["a", "b"]),
    ],
    ids=["spaces", "tabs", "several spaces"],
)
def test_tokens_are_sent_as_they_are(
    weir: Weir, fake: FakeServer, text: str, tokens: list[str]
) -> None:
    done = weir("tag", "--tokens", text, "--json", "--model", "shouts", "--target", fake.target)

    (request,) = fake.tasks.requests
    (sent,) = request.texts
    assert sent.WhichOneof("content") == "tokens" and list(sent.tokens.tokens) == tokens
    (one,) = json.loads(done.out)
    assert one["text"] == " ".join(tokens)
    assert [token["text"] for token in one["tokens"]] == tokens


@pytest.mark.parametrize(
    "content",
    [
        "# text = du pain\n1-2\tdu\t{0}\n1\tde\t{0}\n2\tle pain\t{0}\n\n1\tOui\t{0}\n".format(
            "\t".join("_" * 8)
        ),
        "de\tX\nle pain\tY\n\n\t\nOui\tZ",
    ],
    ids=["conllu without tags", "words and tags"],
)
def test_tokens_may_come_from_a_conll_file(
    weir: Weir, fake: FakeServer, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "x.conllu"
    path.write_text(content)

    done = weir("tag", "--conll", path, "--json", "--model", "shouts", "--target", fake.target)

    sentences = [[token["text"] for token in each["tokens"]] for each in json.loads(done.out)]
    assert sentences == [["de", "le pain"], ["Oui"]]


def test_a_token_a_line_is_a_conll_file(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("A\nb\n\nC\n")

    done = weir("tag", "--conll", path, "--json", "--model", "shouts", "--target", fake.target)

    assert [each["text"] for each in json.loads(done.out)] == ["A b", "C"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "--conll", "a"], "--tokens: expected it without --conll, got both"),
        (["--conll", "missing.conllu"], "missing.conllu: expected a text file, got"),
    ],
    ids=["both", "no file"],
)
def test_wrong_tokens_are_mistakes_of_the_caller(
    weir: Weir, fake: FakeServer, arguments: list[str], message: str
) -> None:
    done = weir("tag", *arguments, "--model", "shouts", "--target", fake.target)

    assert done.code == 2 and message in done.err and not fake.tasks.requests
