"""The test set of pairs as requests, and what a server's greedy answers to them score.

Needs the extra `train`, so it is imported where it is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from weir.bundle.contract import Tolerance
from weir.bundle.decoding import Detokenisation
from weir.client.errors import UsageError, WeirError
from weir.evaluate.asked import Asked, choose
from weir.evaluate.questions import Question
from weir.training.data import PAIR_SETS, PairData
from weir.training.data.segment import Segmenter, Side
from weir.training.data.subwords import joined
from weir.training.data.vocabulary import PAD, Vocabulary
from weir.training.errors import DataError
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe, quicken, require_applicable
from weir.training.seq2seq.packed import Strip, encode
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.seq2seq.recipes import RECIPES
from weir.training.seq2seq.scores import bleu, token_error_rate, word_error_rate
from weir.training.seq2seq.splits import read_pairs, read_whole

if TYPE_CHECKING:
    from weir.bundle.contract import Contract
    from weir.bundle.reader import Bundle
    from weir.client.results import Answer

TOKENS, LENGTHS = "output_tokens", "output_lengths"


@dataclass(frozen=True, slots=True)
class PairTest:
    """Requests, sources of like length together, and what their answers are scored by.

    questions: their answers are rows of `data`.
    vocabulary: of the answers' tokens.
    rule: how these are joined.
    why, is_other: as `asked.Asked` says.
    """

    questions: list[Question]
    data: PairData
    vocabulary: Vocabulary
    rule: Detokenisation
    why: str
    is_other: bool

    @property
    def tolerance(self) -> Tolerance:
        """Rows whose two likeliest tokens tie to the last digits may go either way. BLEU is out of 100."""
        return Tolerance(absolute=0.05 if self.rule == "subwords" else 0.0005, relative=0.0)

    def measure(self, answers: Sequence["Answer"]) -> dict[str, float]:
        """BLEU of subwords, else word and token error rates, named as training names them.

        Raises:
            WeirError: answers of another model than the bundle's.
        """
        outputs: list[list[str]] = [[] for _ in range(len(self.data))]
        for question, answer in zip(self.questions, answers, strict=True):
            for row, tokens in zip(question.answers.tolist(), self._read(answer), strict=True):
                outputs[row] = tokens
        if self.rule == "subwords":
            scored = bleu(list(map(joined, outputs)), self.data.references, lower=True)
            return {"bleu": scored.score}
        split = Segmenter(self.rule).split
        references = [[split(text) for text in accepted] for accepted in self.data.references]
        return {
            "word_error_rate": word_error_rate(outputs, references),
            "token_error_rate": token_error_rate(outputs, references),
        }

    def _read(self, answer: "Answer") -> list[list[str]]:
        """The tokens of each row."""
        if TOKENS not in answer or LENGTHS not in answer:
            raise WeirError(f"{answer.model}: expected {TOKENS} and {LENGTHS}, got {list(answer)}")
        rows, lengths = answer[TOKENS].tolist(), answer[LENGTHS].tolist()
        try:
            return [
                self.vocabulary.decode(row[:length])
                for row, length in zip(rows, lengths, strict=True)
            ]
        except DataError as error:
            raise WeirError(
                f"{answer.model}: answers with tokens of another bundle: {error}"
            ) from error


def hold_out(
    data: str, bundle: "Bundle", changes: Mapping[str, Setting], *, is_quick: bool, rows: int
) -> PairTest:
    """The pairs that recipes test on, their sources in the numbers of the bundle's vocabulary.

    Args:
        data: a set's name or a file.
        bundle: of a pair.
        changes: settings of the data, as the run had them.
        is_quick: whether the run was in its quick form, which tests on short sources.
        rows: of a request.

    Raises:
        TrainingError: the data cannot be read.
        UsageError: the bundle takes or gives ids only.
    """
    contract = bundle.contract
    tokenisation, decoding = contract.tokenisation, contract.decoding
    if tokenisation is None or decoding is None or decoding.detokenisation is None:
        raise UsageError(f"{contract.architecture}: the bundle does not say how texts become ids")
    asked = _asked(data, contract, changes, is_quick=is_quick)
    pairs = asked.rows
    segmenter = Segmenter(tokenisation.rule, tokenisation.lower, bundle.subwords)
    source = Side(segmenter, _vocabulary(bundle, tokenisation.tokens))
    strip = Strip.of(encode(pairs.sources, source, pairs.name))
    questions = []
    for chosen in torch.split(torch.argsort(strip.lengths, stable=True), rows):
        inputs = {"tokens": strip.take(chosen, PAD), "lengths": strip.lengths[chosen]}
        numbers = {name: tensor.numpy() for name, tensor in inputs.items()}
        questions.append(Question(numbers, chosen.numpy()))
    vocabulary = _vocabulary(bundle, decoding.previous)
    rule = decoding.detokenisation
    return PairTest(questions, pairs, vocabulary, rule, asked.why, asked.is_other)


def _asked(
    data: str, contract: "Contract", changes: Mapping[str, Setting], *, is_quick: bool
) -> Asked[PairData]:
    named = contract.training.recipe if contract.training else ""
    # Which one matters to the quick form alone.
    recipe = make_recipe(named if named in RECIPES else "translate", data, **changes)
    require_applicable(recipe, changes)
    if is_quick:
        recipe = quicken(recipe)
    if not isinstance(recipe, Seq2SeqRecipe):
        raise TypeError(recipe)
    asked = choose(
        data,
        PAIR_SETS,
        contract.training.data_checksum if contract.training else None,
        whole=partial(read_whole, recipe),
        held_out=lambda: read_pairs(recipe).test,
    )
    most = recipe.most_characters
    return asked if most is None else replace(asked, why=f"{asked.why}, up to {most} characters")


def _vocabulary(bundle: "Bundle", name: str) -> Vocabulary:
    return Vocabulary(tuple(bundle.vocabulary(name) or ()))
