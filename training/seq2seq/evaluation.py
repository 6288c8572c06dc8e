"""What a test set says of a network: error rates or BLEU, of the greedy outputs and of the beam's.

Error rates and right outputs are told by the tokens of the target side, so case is no error where the network
knows none. BLEU is of the references as they were written.
"""

from collections.abc import Mapping, Sequence

from weir.training.data.pairs import PairData
from weir.training.experiment import Evaluation
from weir.training.seq2seq.hypotheses import Hypothesis
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.seq2seq.scores import bleu, exact_accuracy, token_error_rate
from weir.training.seq2seq.sides import Sides

GREEDY, BEAM = "", "_beam"
"""How the names of metrics end, by the search they are of."""


def judge(
    greedy: Sequence[Hypothesis],
    beam: Sequence[Hypothesis] | None,
    data: PairData,
    sides: Sides,
    recipe: Seq2SeqRecipe,
) -> Evaluation:
    """Each search in the recipe's own terms; the accuracy is the share of greedy outputs that are right."""
    searches = {GREEDY: greedy} if beam is None else {GREEDY: greedy, BEAM: beam}
    references = references_of(data, sides)
    accuracy = exact_accuracy(tokens_of(greedy, sides), references)
    metrics: dict[str, float] = {}
    notes: dict[str, str] = {}
    for search, found in searches.items():
        if recipe.score == "bleu":
            scored = bleu(texts_of(found, sides), data.references, lower=True)
            metrics[f"bleu{search}"] = scored.score
            notes["sacrebleu"] = scored.signature
        else:
            tokens = tokens_of(found, sides)
            metrics[f"word_error_rate{search}"] = 1.0 - exact_accuracy(tokens, references)
            metrics[f"token_error_rate{search}"] = token_error_rate(tokens, references)
    return Evaluation(accuracy, None, metrics, notes)


def tell(metrics: Mapping[str, float], recipe: Seq2SeqRecipe) -> str:
    """One line of what `judge` measured."""
    told = f"test {_told(metrics, GREEDY)}"
    if any(name.endswith(BEAM) for name in metrics):
        told += f", by beam of {recipe.search.beam_width}: {_told(metrics, BEAM)}"
    return told


def tokens_of(found: Sequence[Hypothesis], sides: Sides) -> list[list[str]]:
    """Outputs as tokens."""
    return [sides.target.decode(hypothesis.tokens) for hypothesis in found]


def texts_of(found: Sequence[Hypothesis], sides: Sides) -> list[str]:
    """Outputs as text."""
    return [sides.target.text(hypothesis.tokens) for hypothesis in found]


def references_of(data: PairData, sides: Sides) -> list[list[list[str]]]:
    """Of each row, every target that is accepted, as tokens."""
    split = sides.target.segmenter.split
    return [[split(text) for text in accepted] for accepted in data.references]


def _told(metrics: Mapping[str, float], search: str) -> str:
    """The measures of one search; only those of the greedy one, which comes first, have their names."""
    if f"bleu{search}" in metrics:
        score = f"{metrics[f'bleu{search}']:.1f}"
        return score if search else f"BLEU {score}"
    words, tokens = (metrics[f"{unit}_error_rate{search}"] for unit in ("word", "token"))
    if search:
        return f"{100 * words:.1f} %, {100 * tokens:.1f} %"
    return f"word error rate {100 * words:.1f} %, token error rate {100 * tokens:.1f} %"
