"""The recipes of sequence to sequence: functions of the data set, which give what differs from the defaults."""

from collections.abc import Callable

from weir.training.recipe import Setting

MADE_FOR = {
    "pronounce": ("cmudict-pronounce", "g014b2b", "PATH"),
    "translate": ("multi30k", "PATH"),
}
"""The data sets of each recipe, its default first; PATH stands for a file of yours, or two."""

COMMON: dict[str, Setting] = {
    "task": "sequence-to-sequence",
    "optimizer": {"kind": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-2},
    "label_smoothing": 0.1,
    "average_decay": 0.999,
    # One thread: a step of the decoder is a small matrix.
    "cpu_threads": 1,
    "cpu_bfloat16": True,
    "patience": 100,
}


def pronounce(data: str) -> dict[str, Setting]:
    """How an English word is pronounced: letters to phonemes."""
    is_known = data in ("cmudict-pronounce", "g014b2b")
    return {
        **COMMON,
        "architecture": "pronounce",
        "source": {"rule": "letters", "lower": True},
        "target": {"rule": "spaces"},
        "coder": {
            "cell": "gru",
            "word_size": 64,
            "hidden": 256,
            "layers": 2 if is_known else 1,
            "dropout": 0.3 if is_known else 0.2,
        },
        "score": "errors",
        "search": {"most_tokens": 40},
        "epochs": 20 if is_known else 30,
        "batch_size": 128 if is_known else 32,
        # Words are many: so few of them choose the epoch well enough, and the rest is learnt from.
        "validation_share": 0.02 if is_known else 0.1,
    }


def translate(data: str) -> dict[str, Setting]:
    """One language to another: subwords of both (D. Bahdanau et al., 2015, with fewer units)."""
    side: dict[str, Setting] = {"rule": "subwords", "lower": True, "maximum": 5000}
    return {
        **COMMON,
        "architecture": "translate",
        "source": side,
        "target": side,
        "coder": {
            "cell": "gru",
            "word_size": 256,
            "hidden": 256,
            "dropout": 0.4,
            "is_tied": True,
        },
        "score": "bleu",
        "epochs": 14 if data == "multi30k" else 30,
        "batch_size": 64,
    }


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    "pronounce": pronounce,
    "translate": translate,
}

QUICK: dict[str, dict[str, Setting]] = {
    "pronounce": {
        "most_characters": 6,
        "most_rows": 16_000,
        "epochs": 8,
        "batch_size": 64,
        "coder": {"hidden": 96, "layers": 1, "dropout": 0.2},
        "average_decay": 0.98,
        "optimizer": {"learning_rate": 4e-3},
    },
    "translate": {
        "most_characters": 60,
        "most_rows": 4000,
        "epochs": 5,
        "batch_size": 32,
        "source": {"maximum": 1000},
        "target": {"maximum": 1000},
        "coder": {"word_size": 64, "hidden": 96, "dropout": 0.2},
        "average_decay": 0.98,
        "optimizer": {"learning_rate": 4e-3},
    },
}
"""What the quick form changes: under a minute on one core, for tests and the demo."""
