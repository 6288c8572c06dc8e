"""The command line, and the options it derives from the recipes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from weir.training.__main__ import changes_of, main
from weir.training.checkpoint import CHECKPOINT
from weir.training.recipes import (
    RECIPES,
    change_recipe,
    make_recipe,
)
from weir.training.run_directory import WEIGHTS, read_record

QUICK = ["--batch-size", "16", "--epochs", "2"]


def test_trains_a_folder_and_resuming_the_finished_run_is_harmless(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    order = ["lenet5", "--data", str(shapes), "--out", str(out)]

    first = main([*order, *QUICK, "--learning-rate", "0.004", "--seed", "5"])
    again = main([*order, "--resume"])

    printed = capsys.readouterr().out
    record = read_record(out)
    assert first == again == 0
    assert printed.count("test accuracy") == 2 and "epoch 2/2: loss" in printed
    assert (record.seed, record.recipe.epochs, record.recipe.batch_size) == (5, 2, 16)
    assert record.recipe.optimizer.learning_rate == 0.004


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lenet"], "weir: unknown recipe 'lenet'; there are alexnet, "),
        (["lenet5", "--data", "/no/such"], "weir: /no/such: neither a data set"),
        (["lenet5", "--epochs", "0"], "weir: epochs: Input should be greater than or equal to 1"),
        (["lenet5", "--learning-rate", "-1"], "weir: optimizer.learning_rate: "),
        (["lenet5", "--resume", "--out", "/no/such"], "weir: /no/such: nothing to resume"),
        (
            ["lenet5", "--height", "32"],
            "weir: digits: expected pictures of 32 x 28 x 1, got 28 x 28 x 1",
        ),
        (["lenet5", "--out", "/dev/null/x"], "weir: "),
    ],
    ids=["recipe", "data", "epochs", "rate", "resume", "size", "out"],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = [] if "--out" in args else ["--out", str(tmp_path / "run")]

    code = main([*args, *out])

    errors = capsys.readouterr().err
    assert code == 2
    assert errors.startswith(message) and errors.count("\n") == 1


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No local data, and no network to download from."""
    for name, value in {"https_proxy": "http://127.0.0.1:1", "no_proxy": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("WEIR_DATA", raising=False)


@pytest.mark.parametrize(
    ("args", "file", "others"),
    [
        (["narx"], "timeseries/monthly-sunspots.csv", "PATH"),
        (["question", "--data", "trec-fine"], "trec/train_5500.label", "trec, PATH"),
        (["lenet5", "--data", "mnist"], "mnist/", "digits, fashion-mnist, cifar10, PATH"),
    ],
    ids=["default", "named", "pictures"],
)
@pytest.mark.usefixtures("offline")
def test_without_a_network_it_says_where_data_may_come_from(
    args: list[str],
    file: str,
    others: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    code = main([*args, "--out", str(tmp_path / "run")])

    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert f"put as {file}" in error and "into a folder that WEIR_DATA names" in error
    assert error.endswith(f"; or say --data with one of: {others}")


@pytest.mark.parametrize("args", [[], ["lenet5", "--epochs", "many"], ["lenet5", "--nothing"]])
def test_wrong_usage_is_exit_code_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args, prog="weir train") == 2
    assert "weir train" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_a_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lenet5", "--device", "cuda"]) == 2
    assert "weir: no CUDA device here" in capsys.readouterr().err


FLAGS = """
    --data --out --device --resume --overwrite --list --quick --log --log-gradients
    --epochs --batch-size --learning-rate --seed
    --height --width --channels --short-side
    --cell --hidden --layers --pool --truncate-steps --column --dev --test
    --class-weights --tokens --keep
    --target-data --dev-target --test-target --with-stress --source-language --target-language
    --teacher-forcing --beam --no-attention
    --value --exogenous --lags --exogenous-lags --horizon --season --decimal
"""


def test_help_lists_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    assert main(["--help"]) == 0

    listed = set(re.findall(r"│\s+(--[a-z-]+)", capsys.readouterr().out))
    assert listed == {*FLAGS.split(), "--help"}


def test_the_list_has_one_line_for_each_recipe_and_says_what_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert main(["--list"]) == 0

    printed = capsys.readouterr().out
    for name in RECIPES:
        lines = re.findall(rf"^  {name} .* \d+ (?:s|min|h) *$", printed, re.MULTILINE)
        assert len(lines) == 1, name
    assert "LABEL<TAB>text" in printed and "a folder of pictures for each class" in printed
    assert "weir train tagger --data FILE.conllu" in printed


def test_the_command_without_a_recipe_leads_to_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([], prog="weir train") == 2
    assert capsys.readouterr().err == (
        "weir: expected a recipe; weir train --list says which one takes your data\n"
    )

    assert main(["--list"]) == 0
    assert main(["tagger", "--list"]) == 0
    assert main(["tigger", "--list"]) == 2

    printed = capsys.readouterr()
    assert "weir train tagger --data FILE.conllu" in printed.out and "ewt" in printed.out
    assert printed.err.startswith("weir: unknown recipe 'tigger'; there are ")


def test_data_in_the_place_of_the_recipe_lead_to_the_list(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(shapes)], prog="weir train") == 2

    assert capsys.readouterr().err == (
        f"weir: expected weir train RECIPE --data {shapes}, got the data alone; "
        "weir train --list says which recipe takes them\n"
    )


def test_a_run_is_overwritten_only_with_the_option(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["lenet5", "--data", str(shapes), "--out", str(tmp_path / "run"), *QUICK]
    assert main(order) == 0

    refused = main(order)
    assert refused == 2 and "holds a run already" in capsys.readouterr().err
    assert main([*order, "--overwrite"]) == 0


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    order = ["lenet5", "--data", str(shapes), "--out", str(out), "--batch-size", "1"]
    whole = [*order, "--epochs", "12", "--seed", "2"]
    whole[4] = str(tmp_path / "whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "weir.training", *order, "--epochs", "12", "--seed", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    first_line = process.stdout.readline()

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert first_line.startswith("epoch 1/12")
    assert process.returncode == 130
    assert (out / CHECKPOINT).is_file()
    command = f"python -m weir.training lenet5 --data {shapes} --out {out} --resume"
    assert "stopped in epoch" in errors and errors.rstrip().endswith(command)
    assert main([*command.split()[3:], "--epochs", "9"]) == 2
    assert main(command.split()[3:]) == 0
    assert main(whole) == 0
    one, other = load_file(out / WEIGHTS), load_file(tmp_path / "whole" / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("recipe", "group"),
    [("question", "encoder"), ("pronounce", "coder"), ("narx", "network"), ("lenet5", "encoder")],
)
def test_the_shape_of_a_network_goes_to_the_group_that_describes_it(
    recipe: str, group: str
) -> None:
    assert changes_of(recipe, {"hidden": 8, "layers": None}) == {group: {"hidden": 8}}


def test_what_is_left_out_changes_nothing() -> None:
    for name in RECIPES:
        recipe = make_recipe(name)
        assert change_recipe(recipe, **changes_of(name, {"seed": None, "lags": None})) == recipe


def test_each_setting_goes_to_its_group_and_files_are_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    changes = changes_of(
        "pronounce",
        {"seed": 3, "attends": False, "cell": "lstm", "beam_width": 2, "dev": Path("a.tsv")},
    )

    assert changes == {
        "seed": 3,
        "coder": {"attends": False, "cell": "lstm"},
        "search": {"beam_width": 2},
        "dev": str(tmp_path / "a.tsv"),
    }


def test_columns_stand_between_commas() -> None:
    assert changes_of("narx", {"exogenous": "a, b c,d"}) == {"exogenous": ("a", "b c", "d")}
    assert changes_of("narx", {"exogenous": '"a, b", c'}) == {"exogenous": ("a, b", "c")}
    assert changes_of("narx", {"exogenous": None}) == {}


def test_skipped_pictures_are_told_and_recorded(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (shapes / "left" / "00.png").write_bytes(b"broken")
    (shapes / "left" / "note.txt").write_text("no picture")
    out = tmp_path / "run"

    assert main(["lenet5", "--data", str(shapes), "--out", str(out), "--epochs", "1"]) == 0

    assert f"{shapes}: skipped 1 of 40 pictures: left/00.png (no picture)" in caplog.text
    image = json.loads((out / "run.json").read_text())["image"]
    assert image["skipped_files"] == 2
    assert set(image["skipped"]) == {"left/00.png (no picture)", "left/note.txt (no picture)"}


def test_too_many_broken_pictures_end_the_training(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (shapes / "left" / f"0{number}.png").write_bytes(b"")
    out = tmp_path / "run"

    assert main(["lenet5", "--data", str(shapes), "--out", str(out), "--epochs", "1"]) == 2

    says = capsys.readouterr().err
    assert "expected at most 5% of the pictures unreadable, got 3 of 40: left/00.png" in says
    assert not out.exists()
