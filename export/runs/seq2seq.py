"""Export of sequence-to-sequence runs as two graphs."""

from pathlib import Path

import torch
from torch import Tensor

from weir.bundle.contract import Precision
from weir.bundle.decoding import Detokenisation
from weir.bundle.sequences import Tokenisation
from weir.export.errors import ExportError
from weir.export.publishing import Published
from weir.export.runs.provenance import data_name, describe_random, provenance_of
from weir.export.seq2seq.graphs import LENGTHS, TOKENS
from weir.export.seq2seq.publishing import MOST_SEQUENCES, publish_pair
from weir.export.seq2seq.spec import PairSpec
from weir.training.batching import PackedRows
from weir.training.data.tokenizer import Sides
from weir.training.data.vocabulary import UNKNOWN
from weir.training.errors import TrainingError
from weir.training.run_directory import PairRecord, RunRecord, part_of
from weir.training.seq2seq.batches import encode
from weir.training.seq2seq.experiment import load_model, load_sides, load_test
from weir.training.seq2seq.recipes import Seq2SeqRecipe, SideSettings

SUBWORDS = "subwords.tokens.model"

_DETOKENISATION: dict[str, Detokenisation] = {
    "letters": "letters",
    "spaces": "spaces",
    "words": "spaces",
    "subwords": "subwords",
}


def publish_pair_run(
    run: Path,
    record: RunRecord,
    *,
    to: Path,
    name: str | None,
    version: int | None,
    precision: Precision,
) -> Published:
    """Publish a trained encoder-decoder; see `runs.publishing.publish_run`."""
    if precision != "fp32":
        raise ExportError(
            f"{record.recipe.name}: expected fp32 for an encoder-decoder, got {precision}"
        )
    sides = load_sides(run)
    try:
        sources = list(load_test(record).sources)
    except TrainingError as error:
        described = describe_random(record, error)
        examples = _random_sources(record)
    else:
        described = f"test sources of {data_name(record)}"
        examples = _examples(sources, sides, record)
    return publish_pair(
        load_model(run),
        examples,
        _spec(record, sides, described),
        to=to,
        name=name or record.architecture,
        version=version,
    )


def _examples(sources: list[str], sides: Sides, record: RunRecord) -> dict[str, Tensor]:
    """Sources spread over the test set, up to the length of training sources."""
    most = part_of(record, Seq2SeqRecipe).source.most_tokens
    ids = [each for each in encode(sources, sides.source, data_name(record)) if len(each) <= most]
    places = torch.linspace(0, len(ids) - 1, min(MOST_SEQUENCES, len(ids))).long().tolist()
    packed = PackedRows.of_ids([ids[place] for place in places])
    return {TOKENS: packed.take(torch.arange(len(packed)), 0), LENGTHS: packed.lengths}


def _random_sources(record: RunRecord) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows, steps = 64, 12
    tokens = torch.randint(
        4, part_of(record, PairRecord).source_words, (rows, steps), generator=generator
    )
    lengths = torch.randint(1, steps + 1, (rows,), generator=generator)
    lengths[0] = steps
    return {TOKENS: tokens, LENGTHS: lengths}


def _spec(record: RunRecord, sides: Sides, examples: str) -> PairSpec:
    recipe = part_of(record, Seq2SeqRecipe)
    return PairSpec(
        architecture=record.architecture,
        maximum_steps=recipe.search.most_tokens,
        source_vocabulary=sides.source.vocabulary.entries,
        target_vocabulary=sides.target.vocabulary.entries,
        tokenisation=_tokenisation(recipe.source),
        subwords=sides.source.tokenizer.model,
        detokenisation=_DETOKENISATION[recipe.target.rule],
        examples=examples,
        training=provenance_of(record),
        commit=record.commit,
    )


def _tokenisation(side: SideSettings) -> Tokenisation:
    model = SUBWORDS if side.rule == "subwords" else None
    return Tokenisation(rule=side.rule, lower=side.lower, unknown=UNKNOWN, model=model)
