import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer


def test_the_answer_is_shown_as_a_table(weir: Weir, fake: FakeServer) -> None:
    done = weir("infer", "echo", "-i", "[[3, 4]]", "--target", fake.target)

    assert done.code == 0 and "int64" in done.out and "[[3 4]]" in done.out


def test_the_target_comes_from_the_environment(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIR_TARGET", fake.target)

    done = weir("infer", "sum", "-i", "a=[[3, 4]]", "-i", "b=[[1, 1]]", "-o", "y", "--json")

    assert json.loads(done.out)["outputs"]["y"] == {
        "dtype": "int64",
        "shape": [1, 2],
        "data": [[4, 5]],
    }


def test_the_outputs_can_be_kept(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    out = tmp_path / "answer.npz"

    done = weir("infer", "echo", "-i", "[[3, 4]]", "--out", out, "--target", fake.target)

    assert done.code == 0
    with np.load(out) as kept:
        assert kept["y"].tolist() == [[3, 4]]


def test_text_is_shown_as_text(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    words = tmp_path / "words.npy"
    np.save(words, np.array(["weir"]))

    done = weir("infer", "echo", "-i", words, "--json", "--target", fake.target)

    assert json.loads(done.out)["outputs"]["y"]["data"] == ["weir"]


def test_text_is_kept_without_pickle(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    words, out = tmp_path / "words.npy", tmp_path / "answer.npz"
    np.save(words, np.array(["weir"]))

    weir("infer", "echo", "-i", words, "--out", out, "--target", fake.target)

    with np.load(out, allow_pickle=False) as kept:
        assert kept["y"].tolist() == [b"weir"]


def test_wrong_usage_is_one_line_and_code_2(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    for arguments in (["-i", "hello"], ["-i", "[[1, 2]]", "--out", "answer.txt"]):
        done = weir("infer", "echo", *arguments, "--target", fake.target)

        assert done.code == 2 and done.err.startswith("weir: ")
        assert len(done.err.splitlines()) == 1
