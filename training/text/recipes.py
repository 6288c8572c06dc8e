"""The recipes of sequences: for each a function of the data set, which gives what differs from the defaults."""

from collections.abc import Callable

from weir.training.recipe import Setting

MADE_FOR = {
    "row-digits": ("digits", "mnist", "fashion-mnist"),
    "question": ("trec", "trec-fine", "PATH"),
    "tagger": ("ewt", "PATH"),
    "stress": ("cmudict-stress", "PATH"),
}
"""The data sets of each recipe, its default first; PATH stands for a file of yours."""

ADAM: dict[str, Setting] = {"kind": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2}
# One thread, as for LeNet: a step's matrices are small.
COMMON: dict[str, Setting] = {
    "optimizer": ADAM,
    "average_decay": 0.998,
    "cpu_threads": 1,
    "patience": 100,
}


def row_digits(data: str) -> dict[str, Setting]:
    """A digit read row by row: 28 steps of 28 numbers, then one class."""
    is_small = data == "digits"
    return {
        **COMMON,
        "task": "sequence-classification",
        "architecture": "row-digits",
        "encoder": {"cell": "lstm", "hidden": 128, "dropout": 0.1},
        "epochs": 40 if is_small else 12,
        "batch_size": 32 if is_small else 128,
        "average_decay": 0.98 if is_small else 0.998,
        "validation_share": 0.1 if is_small else 0.05,
    }


def question(data: str) -> dict[str, Setting]:
    """What a question asks for: words both ways, their states averaged."""
    return {
        **COMMON,
        "task": "sequence-classification",
        "architecture": "question",
        "encoder": {
            "cell": "lstm",
            "hidden": 128,
            "bidirectional": True,
            "dropout": 0.5,
            "pool": "mean",
        },
        "tokens": {
            "size": 100,
            "lower": True,
            "minimum_count": 2,
            "unknown_share": 0.05,
            "spelling": True,
        },
        "label_smoothing": 0.1,
        "epochs": 25 if data == "trec" else 40,
        "batch_size": 32,
        "average_decay": 0.995,
    }


def tagger(_data: str) -> dict[str, Setting]:
    """Parts of speech: words and their spelling, read both ways (X. Ma, E. Hovy, ACL 2016, without the CRF)."""
    return {
        **COMMON,
        "task": "tagging",
        "architecture": "tagger",
        "encoder": {
            "cell": "lstm",
            "hidden": 200,
            "layers": 1,
            "bidirectional": True,
            "dropout": 0.4,
        },
        "tokens": {
            "size": 100,
            "lower": True,
            "minimum_count": 2,
            "unknown_share": 0.1,
            "spelling": True,
            "letter_size": 32,
            "spelling_width": 100,
        },
        "label_smoothing": 0.1,
        "epochs": 15,
        "batch_size": 32,
    }


def stress(_data: str) -> dict[str, Setting]:
    """Which syllables of a word are stressed: one tag a phoneme."""
    return {
        **COMMON,
        "task": "tagging",
        "architecture": "stress",
        "encoder": {
            "cell": "gru",
            "hidden": 128,
            "layers": 2,
            "bidirectional": True,
            "dropout": 0.2,
        },
        "tokens": {"rule": "spaces", "size": 64},
        "epochs": 15,
        "batch_size": 128,
        "validation_share": 0.05,
    }


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    "row-digits": row_digits,
    "question": question,
    "tagger": tagger,
    "stress": stress,
}


TDNN: dict[str, Setting] = {"layers": 4, "hidden": 64}
"""Of an encoder of convolutions, unless it is told otherwise: delays of 1, 2, 4 and 8 steps, and a width at which it
costs less than the recurrent ones. Classes are made of the mean of its states, since the last one has seen but its
neighbours."""


def _quick(epochs: int, rows: int, hidden: int, batch_size: int) -> dict[str, Setting]:
    return {
        "epochs": epochs,
        "most_rows": rows,
        "encoder": {"hidden": hidden},
        "batch_size": batch_size,
        "average_decay": 0.98,
        "optimizer": {"learning_rate": 4e-3},
    }


QUICK: dict[str, dict[str, Setting]] = {
    "row-digits": _quick(6, 5000, 64, 32),
    "question": _quick(5, 3000, 64, 32),
    "tagger": _quick(4, 2000, 64, 16),
    "stress": _quick(5, 20_000, 64, 64),
}
"""What the quick form changes: under a minute on one core, for tests and the demo."""
