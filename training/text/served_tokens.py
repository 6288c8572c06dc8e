"""Tokens of a file beside those that the server cuts from the same texts.

A treebank may split a word in two, as *don't* into *do* and *n't*, or join two, as *20 000*. The
test scores its own tokens, but a server that gets a text cuts it by the recipe's rule.
"""

from difflib import SequenceMatcher
from typing import NamedTuple

from weir.bundle.text import Rule, split_text
from weir.training.data.text import TextData

_MOST_SHOWN, _MOST_COMPARED = 4, 100


class Difference(NamedTuple):
    """How many rows the server cuts otherwise, and a short place where it does."""

    rows: int
    own: tuple[str, ...]
    served: tuple[str, ...]

    def describe(self, data: TextData) -> str:
        """The difference in one line."""
        own, served = (_show(tokens) for tokens in (self.own, self.served))
        return (
            f"{data.name}: in {self.rows:,} of {len(data.rows):,} training rows the server would "
            f"cut the text into other tokens than the file's, such as {served} for {own}; so its "
            "tags of texts are worse than the test says. `weir tag --tokens` sends tokens"
        )


def compare_served_tokens(data: TextData, rule: Rule) -> Difference | None:
    """Compare the tokens of tagged rows; None if the server cuts all of them alike.

    A row without a text is taken as its tokens with spaces between.
    """
    rows = 0
    found: list[Difference] = []
    texts = data.texts or (None,) * len(data.rows)
    for own, text in zip(data.rows, texts, strict=True):
        served = tuple(split_text(" ".join(own) if text is None else text, rule))
        if served != own:
            rows += 1
            if len(found) < _MOST_COMPARED:
                found.append(_first_difference(own, served))
    if not found:
        return None
    return min(found, key=_clarity)._replace(rows=rows)


def _first_difference(own: tuple[str, ...], served: tuple[str, ...]) -> Difference:
    for kind, *ends in SequenceMatcher(None, own, served, autojunk=False).get_opcodes():
        if kind != "equal":
            return Difference(0, own[ends[0] : ends[1]], served[ends[2] : ends[3]])
    raise ValueError(own)


def _clarity(found: Difference) -> tuple[bool, int]:
    """The same letters cut in two ways first, then few tokens."""
    return "".join(found.own) != "".join(found.served), len(found.own) + len(found.served)


def _show(tokens: tuple[str, ...]) -> str:
    more = " …" if len(tokens) > _MOST_SHOWN else ""
    return " + ".join(map(repr, tokens[:_MOST_SHOWN])) + more or "nothing"
