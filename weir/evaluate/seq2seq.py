"""Test set of pairs: their sources as requests, and the scores of a server's greedy answers.

Needs the extra `train`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from weir.bundle.contract import Tolerance
from weir.bundle.decoding import Detokenisation
from weir.client.errors import UsageError, WeirError
from weir.client.results import Answer
from weir.evaluate.test_set import LabelledRequest, Origin, Selection, TextRequest, select_rows
from weir.training.batching import PackedRows
from weir.training.data import PAIR_SETS, PairData
from weir.training.data.tokenizer import Side, Tokenizer, join_subwords
from weir.training.data.vocabulary import PAD, Vocabulary
from weir.training.errors import DataError
from weir.training.recipe import Setting
from weir.training.recipes import (
    applies,
    change_recipe,
    make_recipe,
    quicken,
    require_applicable,
)
from weir.training.seq2seq.batches import encode
from weir.training.seq2seq.evaluation import bleu, token_error_rate, word_error_rate
from weir.training.seq2seq.experiment import read_pairs, read_whole, shorten
from weir.training.seq2seq.recipes import RECIPES, Seq2SeqRecipe

if TYPE_CHECKING:
    from weir.bundle.contract import Contract
    from weir.bundle.reader import Bundle
    from weir.evaluate.model_description import ModelDescription

TOKENS, LENGTHS = "output_tokens", "output_lengths"


@dataclass(frozen=True, slots=True)
class PairSet:
    """Requests sorted by source length, and their references; others as of `ClassifiedSet`.

    Attributes:
        requests: ids of the bundle's vocabulary, or texts without a bundle.
        rows: of each request, the row indices of `data`.
        vocabulary: of the generated tokens; None without a bundle.
        rule: the detokenization rule.
    """

    requests: list[LabelledRequest] | list[TextRequest]
    rows: list[list[int]]
    data: PairData
    vocabulary: Vocabulary | None
    rule: Detokenisation
    origin: Origin

    unit: ClassVar[str] = "pairs"
    remarks: ClassVar[Sequence[str]] = ()
    meanings: ClassVar[Mapping[str, str]] = {}

    @property
    def tolerance(self) -> Tolerance:
        """Room for rows whose two likeliest tokens tie to the last digits; BLEU is out of 100."""
        return Tolerance(absolute=0.05 if self.rule == "subwords" else 0.0005, relative=0.0)

    def measure(self, answers: Sequence[Answer | list[list[str]]]) -> dict[str, float]:
        """BLEU for subwords, else error rates; WeirError for answers of another model.

        An answer is that of the tensors, or the tokens of each text.
        """
        outputs: list[list[str]] = [[] for _ in range(len(self.data))]
        for rows, answer in zip(self.rows, answers, strict=True):
            found = self._read(answer) if isinstance(answer, Answer) else answer
            for row, tokens in zip(rows, found, strict=True):
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

    def _read(self, answer: Answer) -> list[list[str]]:
        """The tokens of each row."""
        if TOKENS not in answer or LENGTHS not in answer:
            raise WeirError(f"{answer.model}: expected {TOKENS} and {LENGTHS}, got {list(answer)}")
        if self.vocabulary is None:
            raise TypeError(answer)
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
    data: str,
    description: "ModelDescription",
    changes: Mapping[str, Setting],
    *,
    is_quick: bool,
    rows: int,
) -> PairSet:
    """The test pairs of a recipe on `data`: ids of the bundle's vocabulary, or texts without one.

    `changes` are the run's settings of the data; a quick run tests on short sources.
    """
    contract = description.contract
    if contract is None:
        raise TypeError(description)
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
    pairs, bundle = selected.rows, description.bundle
    if bundle is None:
        lengths = torch.tensor([len(source) for source in pairs.sources])
    else:
        tokenizer = Tokenizer(tokenisation.rule, tokenisation.lower, bundle.subwords)
        source = Side(tokenizer, _vocabulary(bundle, tokenisation.tokens))
        packed = PackedRows.of_ids(encode(pairs.sources, source, pairs.name))
        lengths = packed.lengths
    # One text a call: the server answers `Generate` text by text.
    size = rows if bundle else 1
    chosen = list(torch.split(torch.argsort(lengths, stable=True), size))
    indices = [each.tolist() for each in chosen]
    rule, origin = decoding.detokenisation, selected.origin
    if bundle is None:
        texts = [
            TextRequest([pairs.sources[row] for row in each], [()] * len(each)) for each in indices
        ]
        return PairSet(texts, indices, pairs, None, rule, origin)
    requests = []
    for each in chosen:
        inputs = {"tokens": packed.take(each, PAD), "lengths": lengths[each]}
        numbers = {name: tensor.numpy() for name, tensor in inputs.items()}
        requests.append(LabelledRequest(numbers, each.numpy()))
    vocabulary = _vocabulary(bundle, decoding.previous)
    return PairSet(requests, indices, pairs, vocabulary, rule, origin)


def _select(
    data: str, contract: "Contract", changes: Mapping[str, Setting], *, is_quick: bool
) -> Selection[PairData]:
    training = contract.training
    recorded = dict(training.row_settings) if training else {}
    # Of the run's test rows alone; another file is measured whole.
    most_recorded = recorded.pop("most_characters", None)
    named = training.recipe if training else ""
    # The recipe matters to the quick form only.
    recipe = make_recipe(named if named in RECIPES else "translate", data)
    recorded = {name: value for name, value in recorded.items() if applies(recipe, name)}
    recipe = change_recipe(recipe, **{**recorded, **changes})
    require_applicable(recipe, changes)
    if is_quick:
        recipe = quicken(recipe)
    if not isinstance(recipe, Seq2SeqRecipe):
        raise TypeError(recipe)
    selected = select_rows(
        data,
        PAIR_SETS,
        training,
        read_all=partial(read_whole, recipe),
        read_test=lambda: read_pairs(recipe).test,
    )
    most = recipe.most_characters
    if most is None and isinstance(most_recorded, int) and selected.origin.recorded:
        most = most_recorded
        selected = replace(selected, rows=shorten(selected.rows, most))
    changed = {name for name, value in changes.items() if recorded.get(name, value) != value}
    if most is None and not changed:
        return selected
    origin = selected.origin
    if most is not None:
        origin = replace(origin, text=f"{origin.text}, up to {most} characters")
    if changed:
        # The pairs are others than those that training measured.
        origin = Origin(f"{origin.text}; training had another {' and '.join(sorted(changed))}")
    return replace(selected, origin=origin)


def _vocabulary(bundle: "Bundle", name: str) -> Vocabulary:
    return Vocabulary(tuple(bundle.vocabulary(name) or ()))
