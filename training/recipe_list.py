"""What `weir train --list` says: what each recipe is for, the data it takes, and the time it takes.

The times were recorded as the CPU time of whole trainings on one core, see `RECORDED_S`. Another
machine needs longer or less; a product of matrices, timed when the list is shown, says how much.
"""

import time
from dataclasses import dataclass

import torch
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from weir.training.recipes import MADE_FOR, make_recipe

_PATH = "PATH"


@dataclass(frozen=True, slots=True)
class RecipeGroup:
    """Recipes that take the same data.

    data: what the user has, in one line.
    command: trains on the user's data.
    rows: what 1,000 of them are counted in.
    recipes: what each is for, by name.
    """

    title: str
    data: str
    command: str
    rows: str
    recipes: dict[str, str]


GROUPS = (
    RecipeGroup(
        "Pictures",
        "a folder, or tar file, with a folder of pictures for each class",
        "weir train inception-v1 --data FOLDER",
        "pictures",
        {
            "lenet5": "small grey pictures (28 x 28): digits, symbols",
            "lenet5-1998": "the same, as published in 1998",
            "alexnet": "colour pictures (64 x 64): the fastest",
            "inception-v1": "colour pictures (64 x 64): more accurate",
            "inception-v3": "colour pictures (64 x 64): the largest",
            "googlenet": "inception-v1, weights as in torchvision",
            "alexnet-2012": "large pictures (224 x 224), as of 2012",
            "row-digits": "digits row by row; takes named sets only",
        },
    ),
    RecipeGroup(
        "Texts, one class each",
        "a file of LABEL<TAB>text, one a line",
        "weir train question --data FILE.tsv",
        "texts",
        {"question": "mails, reviews; names, codes: --tokens letters"},
    ),
    RecipeGroup(
        "Words, one tag each",
        "a treebank (CoNLL-U), or sentences as word/TAG word/TAG",
        "weir train tagger --data FILE.conllu",
        "sentences",
        {
            "tagger": "sentences: parts of speech, names",
            "stress": "symbols of a word: the stress of syllables",
        },
    ),
    RecipeGroup(
        "Pairs of texts",
        "a file of source<TAB>target, or two files, line by line",
        "weir train translate --data FILE.tsv",
        "pairs",
        {
            "translate": "sentences: another language, another style",
            "pronounce": "words, letter by letter: sounds, spellings",
        },
    ),
    RecipeGroup(
        "Series of numbers",
        "a CSV file with a header, a row for each time",
        "weir train ar --data FILE.csv --value COLUMN",
        "rows",
        {
            "ar": "a linear map of past values; the first to try",
            "narx": "a small network of past values",
            "series-rnn": "a simple recurrent network",
            "series-gru": "a recurrent network with gates (GRU)",
            "series-lstm": "a recurrent network with a memory (LSTM)",
        },
    ),
)

RECORDED_S = {
    "lenet5": 6.0,
    "lenet5-1998": 8.0,
    "alexnet": 71.0,
    "inception-v1": 147.0,
    "inception-v3": 1986.0,
    "googlenet": 141.0,
    "alexnet-2012": 5426.0,
    "row-digits": 6.0,
    "question": 16.0,
    "tagger": 19.0,
    "stress": 4.2,
    "translate": 70.0,
    "pronounce": 28.0,
    "ar": 1.0,
    "narx": 1.0,
    "series-rnn": 1.3,
    "series-gru": 3.0,
    "series-lstm": 1.3,
}
"""Seconds for 1,000 rows of the user's data: CPU time of an epoch, times the recipe's epochs.

One thread on an AMD EPYC, torch 2.13, 28 November 2026. The rows were pictures of CIFAR-10,
questions of TREC, sentences of English-EWT and Multi30k, words of CMUdict and g014b2b, and a
made-up series; row-digits read scikit-learn's digits.
"""
_SIZE, _ROUNDS = 512, 7
_RECORDED_PRODUCT_S = 2.45e-3
"""Seconds of a product of matrices of that size there, the fastest of so many."""


def machine_factor() -> float:
    """How many times as long as where the times were recorded a product of matrices takes here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = torch.ones(_SIZE, _SIZE)
    fastest_s = float("inf")
    for _ in range(_ROUNDS):
        # CPU time: what else runs now says nothing about the machine.
        began_s = time.thread_time()
        matrix @ matrix
        fastest_s = min(fastest_s, time.thread_time() - began_s)
    torch.set_num_threads(threads)
    return fastest_s / _RECORDED_PRODUCT_S


def describe_recipes(factor: float) -> RenderableType:
    """All recipes by the data that they take; times are the recorded ones, times the factor."""
    parts: list[RenderableType] = []
    for group in GROUPS:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("recipe", min_width=13, no_wrap=True)
        table.add_column("for", min_width=47)
        table.add_column(f"1,000 {group.rows}", min_width=15, justify="right", no_wrap=True)
        for name, purpose in group.recipes.items():
            table.add_row(name, purpose, _duration(RECORDED_S[name] * factor))
        heading = Text.assemble((group.title, "bold"), f": {group.data}")
        parts += [heading, Text(f"  {group.command}"), Padding(table, (0, 0, 1, 2))]
    parts.append(Text(_NOTE.format(factor=factor)))
    return Group(*parts)


_NOTE = """\
Times: a whole training with 1,000 rows on one core of this machine, estimated: \
recorded on a core of an AMD EPYC, times {factor:.1f}, the time of a product of matrices here. \
Twice the rows take twice as long.

Without --data, a recipe trains on a public data set. \
weir train RECIPE --list shows its data sets, epochs and rates. \
--data hf:NAME takes a data set of the Hugging Face hub."""


_TAGGER_NOTE = """\
Of your own file the number of words decides batch size, learning rate and units: \
docs/training.md, Small treebanks."""


def describe_recipe(name: str) -> Table:
    """The data sets of one recipe, and the settings that depend on them."""
    caption = _TAGGER_NOTE if name == "tagger" else None
    table = Table(
        "data", "epochs", "batch size", "optimizer", "learning rate",
        caption=caption, caption_justify="left",
    )  # fmt: skip
    shown = {
        "your own" if data == _PATH else data: make_recipe(name, data) for data in MADE_FOR[name]
    }
    if name == "question":
        letters = make_recipe(name, _PATH, tokens={"rule": "letters"})
        shown["your own, --tokens letters"] = letters
    for data, recipe in shown.items():
        rate = f"{recipe.optimizer.learning_rate:g}"
        sizes = (str(recipe.epochs), str(recipe.batch_size))
        table.add_row(data, *sizes, recipe.optimizer.kind, rate)
    return table


def _duration(seconds: float) -> str:
    """Two digits at most: an estimate."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 120 else f"{round(minutes / 60)} h"
