"""Runs that are the same for any number of processes: small, of each kind, without dropout.

    torchrun --nproc-per-node 2 -m tests.helpers.process_group_runs FOLDER

trains them into FOLDER; a run that has a checkpoint there is resumed.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from tests.helpers.sequence_files import write_conllu, write_labelled
from tests.helpers.training import Silent
from weir.training.checkpoint import CHECKPOINT, read_checkpoint
from weir.training.distributed import join
from weir.training.recipe import Setting
from weir.training.recipes import AnyRecipe, change_recipe, make_recipe
from weir.training.train import prepare, train_experiment

WORDS = ("ab", "abc", "b", "ba", "bab", "c", "ca", "cab", "cc", "cca", "acb", "bcabca", "a")


def write_data(folder: Path) -> None:
    """Write the files that the recipes read, besides pictures in `shapes`."""
    write_conllu(folder / "tagged.conllu", rows=40)
    write_labelled(folder / "labelled.tsv", rows=40)
    pairs = "".join(f"{word}\t{' '.join(word.upper())}\n" for word in WORDS)
    (folder / "pairs.tsv").write_text(pairs * 2)
    steps = np.arange(140)
    noise = np.random.default_rng(0).normal(0.0, 0.1, 140)
    values = 5.0 + np.sin(steps * 2.0 * np.pi / 7.0) + 0.01 * steps + noise
    (folder / "series.csv").write_text("value\n" + "".join(f"{each:.4f}\n" for each in values))


def recipes(folder: Path) -> dict[str, AnyRecipe]:
    """The recipes by a name of the run; of each, an epoch's last batch has fewer rows than usual.

    Rows have unequal numbers of targets, and some batches fewer rows than there are processes.
    """
    quiet: dict[str, Setting] = {"encoder": {"dropout": 0.0, "hidden": 12}}
    coder: dict[str, Setting] = {"dropout": 0.0, "word_size": 8, "hidden": 12}
    tagged, labelled = str(folder / "tagged.conllu"), str(folder / "labelled.tsv")
    pairs, series = str(folder / "pairs.tsv"), str(folder / "series.csv")
    tdnn: dict[str, Setting] = {"dropout": 0.0, "hidden": 12, "cell": "tdnn"}
    cut: dict[str, Setting] = {"truncate_steps": 2, "bidirectional": False}
    made = {
        "lenet5-1998": make_recipe("lenet5-1998", str(folder / "shapes")),
        "tagger": make_recipe("tagger", tagged, **quiet, class_weights=0.5),
        "tdnn": make_recipe("question", labelled, encoder=tdnn),
        "truncated": make_recipe("question", labelled, encoder={**tdnn, "cell": "gru", **cut}),
        "pairs": make_recipe("pronounce", pairs, coder=coder),
        "tied": make_recipe("pronounce", pairs, coder={**coder, "attends": False, "is_tied": True}),
        "narx": make_recipe("narx", series, network={"dropout": 0.0, "hidden": 8}),
        "series-lstm": make_recipe("series-lstm", series, network={"dropout": 0.0, "hidden": 8}),
    }
    # Of batches of 3 rows the last has one, in some of these runs.
    small: dict[str, Setting] = {"epochs": 2, "batch_size": 3, "mixed_precision": False}
    return {name: change_recipe(recipe, **small) for name, recipe in made.items()}


def main(folder: Path) -> None:
    """Train or resume every run, in the processes that torchrun started."""
    with join(os.environ) as group:
        for name, recipe in recipes(folder).items():
            out = folder / "together" / name
            resumed = read_checkpoint(out) if (out / CHECKPOINT).is_file() else None
            device = torch.device("cpu")
            train_experiment(prepare(recipe), out, device, Silent(), resumed, group=group)
            group.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
