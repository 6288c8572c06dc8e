"""The network a recipe of sequences asks for."""

from torch import nn

from weir.training.errors import ModelError
from weir.training.models.factory import (
    EncoderOptions,
    LetterOptions,
    build_frame_classifier,
    build_text_classifier,
    build_text_tagger,
)
from weir.training.run_directory import SequenceRecord
from weir.training.text.recipe import SequenceRecipe


def build_network(recipe: SequenceRecipe, record: SequenceRecord, classes: int) -> nn.Module:
    """With fresh weights, drawn from torch's global generator.

    Args:
        recipe: of the kind.
        record: of the sizes that the data decided.
        classes: how many.

    Raises:
        ModelError: settings that do not fit each other.
    """
    encoder, tokens = recipe.encoder, recipe.tokens
    options: EncoderOptions = {
        "layers": encoder.layers,
        "bidirectional": encoder.bidirectional,
        "dropout": encoder.dropout,
        "truncate_steps": encoder.truncate_steps,
    }
    if tokens is None or record.words is None:
        if record.features is None or recipe.task == "tagging":
            raise ModelError(f"{recipe.name}: expected frames to classify, or tokens")
        return build_frame_classifier(
            encoder.cell,
            features=record.features,
            mean=record.mean,
            std=record.std,
            classes=classes,
            hidden=encoder.hidden,
            pool=encoder.pool,
            head_dropout=encoder.dropout,
            **options,
        )
    return _of_words(recipe, record, classes, options)


def _of_words(
    recipe: SequenceRecipe, record: SequenceRecord, classes: int, options: EncoderOptions
) -> nn.Module:
    encoder, tokens = recipe.encoder, recipe.tokens
    if tokens is None or record.words is None:
        raise ModelError(f"{recipe.name}: expected words")
    letters: LetterOptions = {
        "characters": record.characters or 0,
        "character_size": tokens.letter_size,
        "spelling_width": tokens.spelling_width,
    }
    if recipe.task == "tagging":
        return build_text_tagger(
            encoder.cell,
            words=record.words,
            classes=classes,
            word_size=tokens.size,
            hidden=encoder.hidden,
            head_dropout=encoder.dropout,
            letters=letters,
            **options,
        )
    return build_text_classifier(
        encoder.cell,
        words=record.words,
        classes=classes,
        word_size=tokens.size,
        hidden=encoder.hidden,
        pool=encoder.pool,
        head_dropout=encoder.dropout,
        letters=letters,
        **options,
    )
