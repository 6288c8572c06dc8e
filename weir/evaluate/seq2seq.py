"""Test set of pairs: their sources as requests, and the scores of a server's greedy answers.

Needs the extra `train`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from weir.bundle.contract import Tolerance
from weir.bundle.decoding import Detokenisation
from weir.client.errors import UsageError, WeirError
from weir.evaluate.test_set import LabelledRequest, Selection, select_rows
from weir.training.batching import PackedRows
from weir.training.data import PAIR_SETS, PairData
from weir.training.data.tokenizer import Side, Tokenizer, join_subwords
from weir.training.data.vocabulary import PAD, Vocabulary
from weir.training.errors import DataError
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe, quicken, require_applicable
from weir.training.seq2seq.batches import encode
from weir.training.seq2seq.evaluation import bleu, token_error_rate, word_error_rate
from weir.training.seq2seq.experiment import read_pairs, read_whole
from weir.training.seq2seq.recipes import RECIPES, Seq2SeqRecipe

if TYPE_CHECKING:
    from weir.bundle.contract import Contract
    from weir.bundle.reader import Bundle
    from weir.client.results import Answer

TOKENS, LENGTHS = "output_tokens", "output_lengths"


@dataclass(frozen=True, slots=True)
class PairSet:
    """Requests sorted by source length, and their references; others as of `ClassifiedSet`.

    Attributes:
        requests: the targets are row indices of `data`.
        vocabulary: of the generated tokens.
        rule: the detokenization rule.
    """

    requests: list[LabelledRequest]
    data: PairData
    vocabulary: Vocabulary
    rule: Detokenisation
    origin: str
    is_unseen: bool

    @property
    def tolerance(self) -> Tolerance:
        """Room for rows whose two likeliest tokens tie to the last digits; BLEU is out of 100."""
        return Tolerance(absolute=0.05 if self.rule == "subwords" else 0.0005, relative=0.0)

    def measure(self, answers: Sequence["Answer"]) -> dict[str, float]:
        """BLEU for subwords, else error rates; WeirError for answers of another model."""
        outputs: list[list[str]] = [[] for _ in range(len(self.data))]
        for request, answer in zip(self.requests, answers, strict=True):
            for row, tokens in zip(request.targets.tolist(), self._read(answer), strict=True):
                outputs[row] = tokens
        if self.rule == "subwords":
            scored = bleu(list(map(join_subwords, outputs)), self.data.references, lower=True)
            return {"bleu": scored.score}
        split = Tokenizer(self.rule).split
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
                f"{answer.model}: expected token ids of the bundle's vocabulary: {error}"
            ) from error


def hold_out(
    data: str, bundle: "Bundle", changes: Mapping[str, Setting], *, is_quick: bool, rows: int
) -> PairSet:
    """The test pairs of a recipe on `data`, their sources as ids of the bundle's vocabulary.

    `changes` are the run's settings of the data; a quick run tests on short sources.
    """
    contract = bundle.contract
    tokenisation, decoding = contract.tokenisation, contract.decoding
    # The contract has no tokenizer-json with two graphs.
    if (
        tokenisation is None
        or tokenisation.rule == "tokenizer-json"
        or decoding is None
        or decoding.detokenisation is None
    ):
        raise UsageError(
            f"{contract.architecture}: expected a bundle with tokenization rules, "
            "got one of ids only"
        )
    selected = _select(data, contract, changes, is_quick=is_quick)
    pairs = selected.rows
    tokenizer = Tokenizer(tokenisation.rule, tokenisation.lower, bundle.subwords)
    source = Side(tokenizer, _vocabulary(bundle, tokenisation.tokens))
    packed = PackedRows.of_ids(encode(pairs.sources, source, pairs.name))
    requests = []
    for chosen in torch.split(torch.argsort(packed.lengths, stable=True), rows):
        inputs = {"tokens": packed.take(chosen, PAD), "lengths": packed.lengths[chosen]}
        numbers = {name: tensor.numpy() for name, tensor in inputs.items()}
        requests.append(LabelledRequest(numbers, chosen.numpy()))
    vocabulary = _vocabulary(bundle, decoding.previous)
    rule = decoding.detokenisation
    return PairSet(requests, pairs, vocabulary, rule, selected.origin, selected.is_unseen)


def _select(
    data: str, contract: "Contract", changes: Mapping[str, Setting], *, is_quick: bool
) -> Selection[PairData]:
    named = contract.training.recipe if contract.training else ""
    # The recipe matters to the quick form only.
    recipe = make_recipe(named if named in RECIPES else "translate", data, **changes)
    require_applicable(recipe, changes)
    if is_quick:
        recipe = quicken(recipe)
    if not isinstance(recipe, Seq2SeqRecipe):
        raise TypeError(recipe)
    selected = select_rows(
        data,
        PAIR_SETS,
        contract.training.data_checksum if contract.training else None,
        read_all=partial(read_whole, recipe),
        read_test=lambda: read_pairs(recipe).test,
    )
    most = recipe.most_characters
    if most is None:
        return selected
    return replace(selected, origin=f"{selected.origin}, up to {most} characters")


def _vocabulary(bundle: "Bundle", name: str) -> Vocabulary:
    return Vocabulary(tuple(bundle.vocabulary(name) or ()))
