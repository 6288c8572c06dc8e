import io
import json
from pathlib import Path

import pytest

from tests.weir.commands.shell import Weir
from tests.weir.fake_server import FakeServer


def test_an_answer_is_a_line(weir: Weir, fake: FakeServer) -> None:
    done = weir("generate", "abc", "de", "--model", "reverse", "--target", fake.target)

    assert (done.code, done.out, done.err) == (0, "cba\ned\n", "")
    assert fake.tasks.requests[0].HasField("greedy")


def test_tokens_are_written_as_they_come(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an answer that never ends, what came of it stands there."""
    done = weir("generate", "abc", "--model", "stuck", "--timeout", 0.5, "--target", fake.target)

    assert done.code == 4 and done.out.strip() == "cba"


def test_what_was_never_seen_or_cut_off_is_told_aside(weir: Weir, fake: FakeServer) -> None:
    done = weir("generate", "xab", "--max-tokens", 2, "--model", "reverse", "--target", fake.target)

    assert done.out == "ba\n"
    assert done.err.splitlines() == [
        "weir: never seen: x",
        "weir: cut off at the most tokens",
    ]


def test_a_beam_shows_its_text_at_the_end(weir: Weir, fake: FakeServer) -> None:
    done = weir("generate", "abc", "--beam", 4, "--model", "reverse", "--target", fake.target)

    assert done.out == "cba\n"
    assert fake.tasks.requests[0].beam.width == 4


def test_several_answers_are_a_table(weir: Weir, fake: FakeServer) -> None:
    done = weir(
        "generate", "abc", "--beam", 4, "--n-best", 2, "--model", "reverse", "--target", fake.target
    )

    assert done.code == 0
    assert "-0.5000" in done.out and "-1.5000" in done.out and done.out.count("cba") == 2


def test_samples_are_drawn_as_asked(weir: Weir, fake: FakeServer) -> None:
    options = ("--sample", "--temperature", 0.5, "--top-k", 3, "--seed", 7)

    weir("generate", "abc", *options, "--model", "reverse", "--target", fake.target)

    sample = fake.tasks.requests[0].sample
    assert (sample.temperature, sample.top_k, sample.seed) == (0.5, 3, 7)


def test_json_is_printed_where_asked_for(weir: Weir, fake: FakeServer) -> None:
    done = weir(
        "generate", "ab", "--json", "--attention", "--model", "reverse", "--target", fake.target
    )

    assert json.loads(done.out) == [
        {
            "model": "reverse",
            "version": "1",
            "hypotheses": [
                {
                    "text": "ba",
                    "tokens": ["b", "a"],
                    "log_probability": -1.5,
                    "score": -0.5,
                    "is_complete": True,
                    "attention": [[0.0, 1.0], [1.0, 0.0]],
                }
            ],
            "source": ["a", "b"],
            "unknown": [],
        }
    ]
    assert done.err == ""


def test_lines_of_standard_input_are_answered_one_by_one(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("ab\ncd\n"))

    done = weir("generate", "-", "--model", "reverse", "--target", fake.target)

    assert done.out == "ba\ndc\n"


def test_attention_is_drawn_in_the_terminal(weir: Weir, fake: FakeServer) -> None:
    done = weir("generate", "abc", "--attention", "--model", "reverse", "--target", fake.target)

    assert done.out.splitlines() == ["cba", "  a b c", "c     ██", "b   ██  ", "a ██    "]


def test_attention_too_wide_for_the_terminal_says_so(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    done = weir(
        "generate", "abcdefghij" * 2, "--attention", "--model", "reverse", "--target", fake.target
    )

    assert done.code == 1
    assert "20 tokens are too wide for 40 columns: --out draws them" in done.err


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_attention_is_drawn_into_a_file(
    weir: Weir, fake: FakeServer, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"looks.{suffix}"

    done = weir("generate", "abc", "--out", out, "--model", "reverse", "--target", fake.target)

    assert (done.code, done.out) == (0, "cba\n")
    assert out.stat().st_size > 1000
    assert fake.tasks.requests[0].attention


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", 1], "--seed: expected --sample with it"),
        (["--sample", "--beam", 2], "--beam: expected either a beam or samples, got both"),
        (["--out", "looks.jpg"], "--out: expected a name that ends in .png or .svg"),
        (["more", "--out", "looks.png"], "--out: expected one text to draw, got 2"),
    ],
    ids=["seed", "both", "suffix", "texts"],
)
def test_options_that_contradict_each_other(
    weir: Weir, fake: FakeServer, options: list[object], message: str
) -> None:
    done = weir("generate", "abc", *options, "--model", "reverse", "--target", fake.target)

    assert done.code == 2 and message in done.err
    assert not fake.tasks.requests


def test_without_matplotlib_the_extra_is_named_before_anything_is_asked(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)

    done = weir("generate", "a", "--out", "l.png", "--model", "reverse", "--target", fake.target)

    assert done.code == 2 and "pip install 'weir[plot]'" in done.err
    assert not fake.tasks.requests
