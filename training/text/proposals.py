"""Proposals for texts without words, such as names and codes: letters as tokens.

A word that the training rows lack tells a network of words little. If most tokens of the
validation rows are such words, or most texts are a single word, letters tell more.
"""

import shlex
from collections import Counter
from pathlib import Path

from weir.training.data.text import TextData
from weir.training.data.vocabulary import UNKNOWN
from weir.training.recipe import PROPOSED_WEIGHTS
from weir.training.text.batches import Sequences
from weir.training.text.recipes import SequenceRecipe

PROPOSAL = "letters"
"""The note of a run that letters were proposed to."""
_MOST = 0.5
UNEQUAL = 5
"""The largest class has so many times the rows of the smallest, if classes are called unequal."""


def propose_letters(recipe: SequenceRecipe, train: TextData, validation: Sequences) -> str | None:
    """Name the command that takes letters as tokens; None if words suit the texts."""
    if recipe.tokens is None or recipe.tokens.rule == "letters" or recipe.task == "tagging":
        return None
    if validation.forms is None:
        return None
    unknown = validation.forms.ids[validation.rows.steps] == UNKNOWN
    single = sum(len(row) == 1 for row in train.rows) / len(train.rows)
    reasons = [
        (float(unknown.float().mean()), "of the tokens of the validation rows are unknown"),
        (single, "of the training rows are a single token"),
    ]
    found = [f"{share:.0%} {reason}" for share, reason in reasons if share > _MOST]
    if not found:
        return None
    return (
        f"{train.name}: {' and '.join(found)}; letters tell a network more about such texts "
        f"than words:\n  {_command(recipe, train)}"
    )


def _command(recipe: SequenceRecipe, train: TextData) -> str:
    files = {"--data": recipe.data, "--dev": recipe.dev, "--test": recipe.test}
    given = [word for flag, name in files.items() if name for word in (flag, name)]
    weights = ["--class-weights", f"{PROPOSED_WEIGHTS:g}"] if _is_unequal(train) else []
    out = ["--out", f"runs/{recipe.name}-{Path(recipe.data).name}-letters"]
    return shlex.join(["weir", "train", recipe.name, *given, "--tokens", "letters", *weights, *out])


def _is_unequal(train: TextData) -> bool:
    counts = Counter(label for (label,) in train.labels).values()
    return max(counts) > UNEQUAL * min(counts)
