"""Runs on pairs of texts as bundles that say how their texts are cut."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from weir.bundle.decoding import Detokenisation
from weir.bundle.reader import Bundle, read
from weir.bundle.sequences import Tokenisation
from weir.export.errors import ExportError
from weir.export.runs.publishing import publish_run
from weir.export.seq2seq.spec import PairSpec
from weir.training.__main__ import main as train
from weir.training.data.tokenizer import open_subwords, split_subwords
from weir.training.seq2seq.experiment import load_sides

SMALL = ["--quick", "--epochs", "1", "--hidden", "8"]
WORDS = ("ab", "abc", "b", "ba", "bab", "c", "ca", "cab", "cc", "cca", "bca", "acb")


@pytest.fixture(scope="module")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Bundle]]:
    """Train and publish a recipe, once."""
    return functools.cache(
        lambda recipe: train_and_publish(recipe, tmp_path_factory.mktemp("pair"))
    )


def train_and_publish(recipe: str, folder: Path) -> tuple[Path, Bundle]:
    pairs = folder / "pairs.tsv"
    lines = [f"{word}\t{' '.join(word.upper())}\n" for word in WORDS]
    pairs.write_text("".join(lines))
    run = folder / "run"
    assert train([recipe, "--data", str(pairs), "--out", str(run), *SMALL]) == 0
    return run, read(publish_run(run, to=folder / "models").path)


@pytest.mark.parametrize(
    ("recipe", "rule", "detokenisation"),
    [("pronounce", "letters", "spaces"), ("translate", "subwords", "subwords")],
)
def test_bundle_says_how_texts_are_cut_and_answers_joined(
    *,
    recipe: str,
    rule: str,
    detokenisation: Detokenisation,
    publish: Callable[[str], tuple[Path, Bundle]],
) -> None:
    _, bundle = publish(recipe)

    contract = bundle.contract
    assert contract.tokenisation is not None and contract.decoding is not None
    assert (contract.tokenisation.rule, contract.tokenisation.lower) == (rule, True)
    assert contract.tokenisation.unknown == 1
    assert contract.decoding.detokenisation == detokenisation
    assert set(contract.vocabularies) == {"tokens", "previous"}
    assert (bundle.subwords is not None) == (rule == "subwords")


def test_subword_model_is_that_of_the_run(
    publish: Callable[[str], tuple[Path, Bundle]],
) -> None:
    run, bundle = publish("translate")

    assert bundle.subwords is not None
    pieces = split_subwords(open_subwords(bundle.subwords), "abc cab")
    assert pieces == load_sides(run).source.tokenizer.split("ABC  cab")
    assert set(pieces) <= set(bundle.vocabulary("tokens") or [])


@pytest.mark.parametrize(
    ("tokenisation", "subwords", "message"),
    [
        (
            Tokenisation(rule="subwords", unknown=1, model="m"),
            None,
            "expected a subword model, got none",
        ),
        (None, b"model", "expected no model without the rule subwords, got one"),
    ],
    ids=["no model", "no rule"],
)
def test_model_and_rule_come_together(
    tokenisation: Tokenisation | None, subwords: bytes | None, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        PairSpec(architecture="a", maximum_steps=1, tokenisation=tokenisation, subwords=subwords)
