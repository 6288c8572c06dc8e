import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from weir.cli import main
from weir.client import errors


def outcome(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("so"), 2),
        (errors.MissingExtra("so"), 2),
        (errors.Unavailable("so"), 3),
        (errors.Unreachable("so"), 3),
        (errors.DeadlineExceeded("so"), 4),
        (errors.ResourceExhausted("so"), 5),
        (errors.NotFound("so"), 1),
        (errors.WeirError("so"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_failure_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: errors.WeirError,
    code: int,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main, "health", fail)

    assert outcome("fail") == code
    assert capsys.readouterr().err.startswith("weir: so")


def test_a_failure_of_several_lines_is_printed_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise errors.WeirError("first\n  second\n")

    monkeypatch.setattr(main, "health", fail)

    assert outcome("fail") == 1
    assert capsys.readouterr().err == "weir: first; second\n"


def test_an_unreachable_server_is_reported_with_advice(
    nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome("models", "--target", nobody) == 3
    assert capsys.readouterr().err == (
        f"weir: no server answers at {nobody}: start one with `weir serve`, or give --target\n"
    )


def test_ctrl_c_ends_with_130_and_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "health", fail)

    assert outcome("fail") == 130
    assert capsys.readouterr().err == ""


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "health", fail)

    with pytest.raises(ZeroDivisionError):
        main.main(["fail"])


@pytest.mark.parametrize("arguments", [["nonsense"], ["models", "--nonsense"], ["infer"]])
def test_what_no_verb_understands_is_a_mistake_of_the_caller(arguments: list[str]) -> None:
    assert outcome(*arguments) == 2


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("--help") == 0

    shown = capsys.readouterr().out
    verbs = (
        "serve train export infer classify classify-text tag generate forecast evaluate inspect "
        "models health bench rollback"
    )
    assert all(f"│ {verb} " in shown for verb in verbs.split())
    assert "3 server unreachable" in " ".join(shown.split())


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weir", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )

    assert "Usage: weir" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("verb", ["forecast", "evaluate", "inspect", "generate", "bench"])
def test_help_breaks_its_lines_at_the_edge_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert outcome(verb, "--help") == 0

    text = capsys.readouterr().out.partition("Usage:")[2].partition("╭")[0]
    lines = [line.strip() for line in text.splitlines()]
    for line, following in itertools.pairwise(lines):
        if line and following:
            assert len(f"{line} {following.split()[0]}") > 76


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("weir mod", ["models"]),
        ("weir models l", ["label", "load"]),
        ("weir infer --ti", ["--timeout"]),
    ],
)
def test_a_shell_can_complete_verbs_and_options(words: str, expected: list[str]) -> None:
    position = str(len(words.split()) - 1)
    completing = {"_WEIR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}

    done = subprocess.run(
        [sys.executable, "-m", "weir"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
        env={**os.environ, **completing},
    )

    assert sorted(done.stdout.split()) == expected and done.stderr == ""
