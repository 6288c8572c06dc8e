"""Outputs, scores and samples, against numbers worked out by hand."""

import functools
from pathlib import Path

import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.encoder_decoders import SOURCE, TARGET, network
from weir.training.data.pairs import PairData
from weir.training.data.tokenizer import Side, Sides, Tokenizer
from weir.training.data.vocabulary import Vocabulary
from weir.training.errors import DataError
from weir.training.seq2seq.evaluation import (
    SAMPLE_ROWS,
    bleu,
    copy_or_most_frequent,
    edit_distance,
    exact_accuracy,
    generate,
    references_of,
    score,
    summarise,
    texts_of,
    token_error_rate,
    tokens_of,
    word_error_rate,
    write_samples,
)
from weir.training.seq2seq.experiment import learn_sides
from weir.training.seq2seq.recipes import RECIPES, SearchSettings, Seq2SeqRecipe
from weir.training.seq2seq.search import Hypothesis

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

    tested = score(
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
    assert summarise(tested.metrics, recipe) == (
        "test word error rate 66.7 %, token error rate 42.9 %, by beam of 4: 33.3 %, 16.7 %"
    )


def test_bleu_comes_with_its_signature_and_case_is_no_error() -> None:
    recipe = make("translate", target={"rule": "words", "lower": True})
    sides = learn_sides(SENTENCES, recipe)
    right = answers(sides, "a dog runs very fast.", "a cat sleeps in the house.")
    wrong = answers(sides, "a cat runs very fast.", "a dog sleeps in the house.")

    tested = score(right, wrong, SENTENCES, sides, recipe)

    assert tested.metrics["bleu"] == pytest.approx(100.0)
    assert 0.0 < tested.metrics["bleu_beam"] < 100.0
    assert tested.accuracy == 1.0
    assert "case:lc" in tested.notes["sacrebleu"] and "version:" in tested.notes["sacrebleu"]
    assert summarise({"bleu": 31.24, "bleu_beam": 32.01}, recipe) == (
        "test BLEU 31.2, by beam of 4: 32.0"
    )


def test_the_baseline_of_pairs_copies_or_gives_the_most_frequent_target() -> None:
    recipe = make("pronounce", source={"rule": "letters"}, target={"rule": "spaces"})
    sides = learn_sides(WORDS, recipe)
    same = PairData("x", ("a b", "c"), (("a b",), ("c",)), "0")
    frequent = PairData("x", ("p", "q", "r"), (("A",), ("A",), ("B",)), "0")
    test = PairData("x", ("A", "A B"), (("A",), ("A C",)), "0")

    copied = copy_or_most_frequent(same, test, sides, recipe)
    constant = copy_or_most_frequent(frequent, test, sides, recipe)

    # Copied: A is right, A B is one token off A C. Constant: A is right, A lacks the C.
    expected = {"baseline_word_error_rate": 1 / 2, "baseline_token_error_rate": 1 / 3}
    assert copied.metrics == pytest.approx(expected)
    assert constant.metrics == pytest.approx(expected)
    assert "its own target" in copied.note and "'A'" in constant.note
    assert summarise(
        {"word_error_rate": 0.1, "token_error_rate": 0.05, **copied.metrics}, recipe
    ) == ("test word error rate 10.0 %, token error rate 5.0 % (baseline: 50.0 %, 33.3 %)")


def test_the_baseline_of_translation_is_the_source() -> None:
    recipe = make("translate", target={"rule": "words", "lower": True})
    sides = learn_sides(SENTENCES, recipe)
    sentence = "a cat sleeps in the house today"
    equal = PairData("x", (sentence,), ((sentence,),), "0")

    assert copy_or_most_frequent(SENTENCES, equal, sides, recipe).metrics == pytest.approx(
        {"baseline_bleu": 100.0}
    )
    assert copy_or_most_frequent(equal, SENTENCES, sides, recipe).metrics["baseline_bleu"] < 10.0


@pytest.mark.parametrize("name", ["pronounce", "translate"])
def test_without_a_beam_there_is_nothing_of_it(name: str) -> None:
    data = {"pronounce": WORDS, "translate": SENTENCES}[name]
    recipe = make(name, target={"rule": "spaces"}, search={"beam_width": 1})
    sides = learn_sides(data, recipe)
    greedy = answers(sides, *(accepted[0] for accepted in data.references))

    tested = score(greedy, None, data, sides, recipe)

    assert tested.accuracy == 1.0
    assert not any("beam" in name for name in tested.metrics)
    assert "beam" not in summarise(tested.metrics, recipe)


def test_tokens_texts_and_references_are_those_of_the_target_side() -> None:
    recipe = make("translate", target={"rule": "words", "lower": True})
    sides = learn_sides(SENTENCES, recipe)
    found = answers(sides, "a dog runs.")

    assert tokens_of(found, sides) == [["a", "dog", "runs", "."]]
    assert texts_of(found, sides) == ["a dog runs."]
    assert references_of(SENTENCES, sides)[0] == [["a", "dog", "runs", "very", "fast", "."]]


SIDES = Sides(
    Side(Tokenizer("letters"), Vocabulary(tuple(SOURCE))),
    Side(Tokenizer("spaces"), Vocabulary(tuple(TARGET))),
)
SETTINGS = SearchSettings(most_tokens=12)
# Out of the order of lengths, and one of them twice.
TEXTS = ["abcdefg", "h", "ca", "bbbbb", "h", "gfedcbaabc", "dd", "hag"]

every_width = pytest.mark.parametrize("width", [1, 3], ids=["greedy", "beam"])


@every_width
@pytest.mark.parametrize("attends", [True, False], ids=["attention", "none"])
def test_outputs_keep_the_order_and_do_not_depend_on_the_batch(
    width: int, *, attends: bool
) -> None:
    asked = network(attends=attends)

    together = generate(asked, TEXTS, SIDES, SETTINGS, width=width)

    alone = [generate(asked, [text], SIDES, SETTINGS, width=width)[0] for text in TEXTS]
    assert [found.tokens for found in together] == [found.tokens for found in alone]
    assert len({found.tokens for found in together}) > 2
    for text, one, other in zip(TEXTS, together, alone, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert (one.attention is not None) == attends
        if one.attention is not None and other.attention is not None:
            steps = len(one.tokens) + one.is_complete
            assert len(one.attention) == steps
            own = one.attention[:, : len(text)]
            torch.testing.assert_close(own, other.attention, atol=1e-5, rtol=0)
            assert not one.attention[:, len(text) :].any()


@every_width
def test_no_output_is_longer_than_the_limit(width: int) -> None:
    found = generate(network(), TEXTS, SIDES, SearchSettings(most_tokens=2), width=width)

    assert all(len(each.tokens) + each.is_complete <= 2 for each in found)


def test_a_network_in_training_mode_generates_without_dropout() -> None:
    asked = network(dropout=0.5).train()

    first, again = (generate(asked, TEXTS, SIDES, SETTINGS, width=1) for _ in range(2))

    assert [found.score for found in first] == [found.score for found in again]


def test_a_blank_source_is_named() -> None:
    with pytest.raises(DataError, match="expected a text with tokens, got ' '"):
        generate(network(), ["a", " "], SIDES, SETTINGS, width=1)


OUTPUTS = [["K", "AE", "T"], ["D", "AA"], ["R", "EH", "D"]]
REFERENCES = [[["K", "AE", "T"]], [["D", "AO", "G"], ["D", "AA", "G"]], [["R", "IY", "D"]]]


def slow_distance(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """The definition, by recursion."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(left), len(right))


@pytest.mark.parametrize(
    ("left", "right", "edits"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_distances_worked_out_by_hand(left: str, right: str, edits: int) -> None:
    assert edit_distance(left, right) == edit_distance(right, left) == edits


words = st.lists(st.sampled_from("abc"), max_size=7)


@given(words, words)
def test_distance_is_the_definition(left: list[str], right: list[str]) -> None:
    assert edit_distance(left, right) == slow_distance(tuple(left), tuple(right))


def test_a_word_is_right_that_is_any_of_its_references() -> None:
    assert exact_accuracy(OUTPUTS, REFERENCES) == pytest.approx(1 / 3)
    assert word_error_rate(OUTPUTS, REFERENCES) == pytest.approx(2 / 3)
    assert exact_accuracy([["D", "AO", "G"]], [REFERENCES[1]]) == 1.0
    assert exact_accuracy(["a b"], [["a", "a b"]]) == 1.0
    assert exact_accuracy([("a",)], [[["a"]]]) == 1.0


def test_tokens_are_compared_with_the_nearest_reference() -> None:
    # cat: 0 of 3; dog: 1 of 3, of the second reference; red: 1 of 3.
    assert token_error_rate(OUTPUTS, REFERENCES) == pytest.approx(2 / 9)
    # Both are 1 away; the first one's length counts.
    assert token_error_rate([["a", "b"]], [[["a"], ["a", "b", "c"]]]) == 1.0
    assert token_error_rate([["a", "b", "c"]], [[["a"]]]) == 2.0


def test_bleu_of_a_sentence_worked_out_by_hand() -> None:
    # 1- to 4-grams: 5 of 6, 3 of 5, 2 of 4, 1 of 3; the lengths are equal.
    found = bleu(["the cat sat on a mat"], [["The cat sat on the mat"]], lower=True)

    assert found.score == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert found.signature.startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:")


def test_bleu_is_that_of_sacrebleu() -> None:
    outputs = ["A man in a hat.", "Two dogs are running, fast!", "a b c d"]
    references = [["A man in an orange hat."], ["Two dogs run fast!"], ["A b c d e"]]
    stream = [accepted[0] for accepted in references]

    for lower in (False, True):
        expected = sacrebleu.corpus_bleu(outputs, [stream], lowercase=lower).score
        assert bleu(outputs, references, lower=lower).score == expected
    assert "case:mixed" in bleu(outputs, references, lower=False).signature


def test_rows_may_have_different_numbers_of_references() -> None:
    outputs = ["the cat sat on a mat", "a dog ran in the park"]
    references = [["the cat sat on a mat", "a cat sat"], ["a dog ran in the park"]]

    found = bleu(outputs, references, lower=True)

    assert found.score == pytest.approx(100.0) and "nrefs:var" in found.signature


def test_invalid_rows_are_not_scored() -> None:
    with pytest.raises(DataError, match="expected rows with references, got 0 and 0"):
        word_error_rate([], [])
    with pytest.raises(DataError, match="expected rows with references, got 1 and 2"):
        bleu(["a"], [["a"], ["b"]], lower=True)
    with pytest.raises(DataError, match="row 0: expected references, got none"):
        token_error_rate([["a"]], [[]])
    with pytest.raises(DataError, match="expected references with tokens, got none"):
        token_error_rate([["a"]], [[[]]])


def left(texts: list[str], data: PairData, sides: Sides, path: Path) -> list[list[str]]:
    encode = sides.target.encode
    found = [Hypothesis(tuple(encode(text)), -1.0, -1.0, is_complete=True) for text in texts]
    write_samples(found, data, sides, path)
    return [line.split("\t") for line in path.read_text("utf-8").splitlines()]


def learn(data: PairData, **target: object) -> Sides:
    settings = {**RECIPES["pronounce"]("x"), "name": "pronounce", "data": "x"}
    target = {"rule": "spaces", **target}
    return learn_sides(data, Seq2SeqRecipe.model_validate({**settings, "target": target}))


def many(count: int) -> PairData:
    sources = tuple(f"w{row}" for row in range(count))
    return PairData("x", sources, (("A",),) * count, "0")


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [(50, 50, (10, 10)), (3, 50, (3, 17)), (50, 3, (17, 3)), (2, 3, (2, 3)), (0, 30, (0, 20))],
    ids=str,
)
def test_half_of_them_are_right_where_there_are_as_many(
    right: int, wrong: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    data = many(right + wrong)
    texts = ["A"] * right + ["A A"] * wrong

    rows = left(texts, data, learn(data), tmp_path / "samples.txt")

    marks = [row[0] for row in rows]
    assert (marks.count("right"), marks.count("wrong")) == expected
    assert marks == sorted(marks) and len(rows) <= SAMPLE_ROWS
    assert len({row[1] for row in rows}) == len(rows)


def test_they_are_spread_over_the_set(tmp_path: Path) -> None:
    data = many(100)

    rows = left(["A A"] * 100, data, learn(data), tmp_path / "samples.txt")

    assert [row[1] for row in rows] == [f"w{5 * place}" for place in range(SAMPLE_ROWS)]


def test_a_line_has_source_output_and_all_references(tmp_path: Path) -> None:
    data = PairData("x", ("Ab", "Ba"), (("a B", "B"), ("C",)), "0")

    rows = left(["b", "a b"], data, learn(data, lower=True), tmp_path / "samples.txt")

    assert rows == [["right", "Ab", "b", "a B | B"], ["wrong", "Ba", "a b", "C"]]
