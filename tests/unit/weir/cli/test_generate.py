import json
from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir, standard_input
from tests.unit.weir.fake_server import FakeServer


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


def test_unknown_tokens_and_truncation_are_warnings(weir: Weir, fake: FakeServer) -> None:
    done = weir("generate", "xab", "--max-tokens", 2, "--model", "reverse", "--target", fake.target)

    assert done.out == "ba\n"
    assert done.err.splitlines() == [
        "weir: never seen: x",
        "weir: cut off at the most tokens",
    ]


def test_a_space_that_was_never_seen_is_a_sign(weir: Weir, fake: FakeServer) -> None:
    done = weir("generate", "a x", "--model", "reverse", "--target", fake.target)

    assert done.err == "weir: never seen: ␣ x\n"


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


def test_samples_follow_the_options(weir: Weir, fake: FakeServer) -> None:
    options = ("--sample", "--temperature", 0.5, "--top-k", 3, "--seed", 7)

    weir("generate", "abc", *options, "--model", "reverse", "--target", fake.target)

    sample = fake.tasks.requests[0].sample
    assert (sample.temperature, sample.top_k, sample.seed) == (0.5, 3, 7)


def test_json_is_printed_with_the_option(weir: Weir, fake: FakeServer) -> None:
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
    monkeypatch.setattr("sys.stdin", standard_input(b"ab\ncd\n"))

    done = weir("generate", "-", "--model", "reverse", "--target", fake.target)

    assert done.out == "ba\ndc\n"


def test_a_text_that_fails_is_named_and_its_line_stays_empty(weir: Weir, fake: FakeServer) -> None:
    order = ["generate", "ab", "too long", "cd", "--model", "reverse", "--target", fake.target]

    lines, objects = weir(*order), weir(*order, "--json")

    assert lines.code == objects.code == 1
    assert lines.out == "ba\n\ndc\n"
    assert lines.err.splitlines() == [
        "weir: too long: expected at most 1 tokens, got 2",
        "weir: 1 of 3 texts could not be answered",
    ]
    first, failed, last = json.loads(objects.out)
    assert failed == {"text": "too long", "error": "expected at most 1 tokens, got 2"}
    assert [each["hypotheses"][0]["text"] for each in (first, last)] == ["ba", "dc"]


def test_what_is_wrong_with_every_text_is_said_once(weir: Weir, fake: FakeServer) -> None:
    order = ["--beam", 99, "--model", "reverse", "--target", fake.target]

    done = weir("generate", "a", "b", *order)

    assert done.code == 1 and done.err == "weir: beam_width: expected at most 32, got 99\n"


def test_a_full_server_is_called_again(weir: Weir, fake: FakeServer) -> None:
    done = weir("generate", "crowded", "--model", "reverse", "--target", fake.target)

    assert (done.code, done.out) == (0, "dedworc\n")
    assert len(fake.tasks.requests) == 2


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


def test_attention_too_wide_for_the_terminal_is_drawn_into_a_file_all_the_same(
    weir: Weir, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = tmp_path / "looks.png"
    order = ["--attention", "--out", out, "--model", "reverse", "--target", fake.target]

    done = weir("generate", "abcdefghij" * 2, *order)

    assert done.code == 0 and "too wide for 40 columns" in done.err
    assert out.stat().st_size > 1000


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
        (["--n-best", 2], "--n-best: expected --beam or --sample with it"),
        (["--out", "looks.jpg"], "--out: expected a name that ends in .png or .svg"),
        (["more", "--out", "looks.png"], "--out: expected one text to draw, got 2"),
    ],
    ids=["seed", "both", "n-best", "suffix", "texts"],
)
def test_options_that_contradict_each_other(
    weir: Weir, fake: FakeServer, options: list[object], message: str
) -> None:
    done = weir("generate", "abc", *options, "--model", "reverse", "--target", fake.target)

    assert done.code == 2 and message in done.err
    assert not fake.tasks.requests


def test_without_matplotlib_the_extra_is_named_before_any_call(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)

    done = weir("generate", "a", "--out", "l.png", "--model", "reverse", "--target", fake.target)

    assert done.code == 2 and "pip install 'weir[plot]'" in done.err
    assert not fake.tasks.requests
