"""Both searches judged, against numbers worked out by hand."""

import pytest

from weir.training.data.pairs import PairData
from weir.training.seq2seq.evaluation import judge, references_of, tell, texts_of, tokens_of
from weir.training.seq2seq.hypotheses import Hypothesis
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.seq2seq.recipes import RECIPES
from weir.training.seq2seq.sides import Sides, learn_sides

WORDS = PairData("x", ("ab", "cat", "no"), (("A B", "A"), ("K A T",), ("N O",)), "0")
SENTENCES = PairData(
    "x",
    ("Ein Hund läuft schnell.", "Eine Katze schläft im Haus."),
    (("A Dog runs very fast.",), ("A cat sleeps in the house.",)),
    "0",
)


def make(name: str, **changes: object) -> Seq2SeqRecipe:
    settings = {**RECIPES[name]("x"), "name": name, "data": "x", **changes}
    return Seq2SeqRecipe.model_validate(settings)


def answers(sides: Sides, *texts: str) -> list[Hypothesis]:
    encode = sides.target.encode
    return [Hypothesis(tuple(encode(text)), -1.0, -1.0, is_complete=True) for text in texts]


def test_error_rates_by_hand() -> None:
    recipe = make("pronounce")
    sides = learn_sides(WORDS, recipe)

    tested = judge(
        answers(sides, "A B", "K A", "O N"),
        answers(sides, "A", "K A T", "N O N"),
        WORDS,
        sides,
        recipe,
    )

    # By beam "A" is right too, and has one token; "N O N" is one insertion away.
    assert tested.metrics == pytest.approx(
        {
            "word_error_rate": 2 / 3,
            "token_error_rate": (0 + 1 + 2) / (2 + 3 + 2),
            "word_error_rate_beam": 1 / 3,
            "token_error_rate_beam": 1 / (1 + 3 + 2),
        }
    )
    assert tested.accuracy == pytest.approx(1 / 3)
    assert tested.confusions is None and tested.notes == {}
    assert tell(tested.metrics, recipe) == (
        "test word error rate 66.7 %, token error rate 42.9 %, by beam of 4: 33.3 %, 16.7 %"
    )


def test_bleu_comes_with_its_signature_and_case_is_no_error() -> None:
    recipe = make("translate", target={"rule": "words", "lower": True})
    sides = learn_sides(SENTENCES, recipe)
    right = answers(sides, "a dog runs very fast.", "a cat sleeps in the house.")
    wrong = answers(sides, "a cat runs very fast.", "a dog sleeps in the house.")

    tested = judge(right, wrong, SENTENCES, sides, recipe)

    assert tested.metrics["bleu"] == pytest.approx(100.0)
    assert 0.0 < tested.metrics["bleu_beam"] < 100.0
    assert tested.accuracy == 1.0
    assert "case:lc" in tested.notes["sacrebleu"] and "version:" in tested.notes["sacrebleu"]
    assert tell({"bleu": 31.24, "bleu_beam": 32.01}, recipe) == (
        "test BLEU 31.2, by beam of 4: 32.0"
    )


@pytest.mark.parametrize("name", ["pronounce", "translate"])
def test_without_a_beam_there_is_nothing_of_it(name: str) -> None:
    data = {"pronounce": WORDS, "translate": SENTENCES}[name]
    recipe = make(name, target={"rule": "spaces"}, search={"beam_width": 1})
    sides = learn_sides(data, recipe)
    greedy = answers(sides, *(accepted[0] for accepted in data.references))

    tested = judge(greedy, None, data, sides, recipe)

    assert tested.accuracy == 1.0
    assert not any("beam" in name for name in tested.metrics)
    assert "beam" not in tell(tested.metrics, recipe)


def test_tokens_texts_and_references_are_those_of_the_target_side() -> None:
    recipe = make("translate", target={"rule": "words", "lower": True})
    sides = learn_sides(SENTENCES, recipe)
    found = answers(sides, "a dog runs.")

    assert tokens_of(found, sides) == [["a", "dog", "runs", "."]]
    assert texts_of(found, sides) == ["a dog runs."]
    assert references_of(SENTENCES, sides)[0] == [["a", "dog", "runs", "very", "fast", "."]]
