"""Subwords: frequent words whole, rare ones in pieces, learnt from the training texts by sentencepiece.

T. Kudo, J. Richardson, "SentencePiece", 2018; pieces by byte pair encoding (R. Sennrich et al., 2016) or by a
unigram model (T. Kudo, 2018). One model for each side, as the two differ in script and endings, and as a
decoder's softmax should have no entries of the other language.

A model is bytes, the library's own format. The ids of its pieces are those of a `Vocabulary`, and white space
is written ▁ in a piece, so that pieces become a text again without the library.
"""

import io
from collections.abc import Iterable
from typing import Literal

import sentencepiece

from weir.training.data.vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, Vocabulary
from weir.training.errors import DataError

Kind = Literal["bpe", "unigram"]
Processor = sentencepiece.SentencePieceProcessor

SPACE = "\u2581"
"""Stands for white space in a piece; one in a text is taken for white space too."""


def train_subwords(texts: Iterable[str], size: int, kind: Kind) -> bytes:
    """Learn pieces; the same texts give the same bytes.

    Args:
        texts: of the training set, as `Segmenter` makes them even. Over 4,192 bytes, one is passed over.
        size: most entries, the special ones counted; small sets yield fewer.
        kind: of the model.

    Raises:
        DataError: no text, or more different characters than entries.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=size,
            hard_vocab_limit=False,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            pad_piece=SPECIAL[PAD],
            unk_piece=SPECIAL[UNKNOWN],
            bos_piece=SPECIAL[BEGIN],
            eos_piece=SPECIAL[END],
            character_coverage=1.0,
            # `Segmenter` has made the text even, by a rule that needs no table of the library's.
            normalization_rule_name="identity",
            # The order in which threads finish would decide the last bits of a unigram model.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"subwords: no {kind} of {size} entries from these texts: {error}"
        ) from error
    return model.getvalue()


def open_subwords(model: bytes) -> Processor:
    """What cuts texts by a model.

    Raises:
        DataError: bytes that are no model, or one with other special ids than ours.
    """
    try:
        processor = Processor(model_proto=model)
    except RuntimeError as error:
        raise DataError(f"subwords: expected a sentencepiece model, found {error}") from error
    ids = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
    if ids != (PAD, UNKNOWN, BEGIN, END):
        raise DataError(f"subwords: expected the special ids 0 to 3, found {ids}")
    return processor


def entries_of(processor: Processor) -> Vocabulary:
    """The pieces of a model, under the ids they have in it."""
    return Vocabulary(tuple(processor.id_to_piece(each) for each in range(len(processor))))


def cut(processor: Processor, text: str) -> list[str]:
    """The pieces of a text; a run of characters the model never saw is a piece of its own."""
    pieces: list[str] = processor.encode(text, out_type=str)
    return pieces


def joined(pieces: Iterable[str]) -> str:
    """The text of pieces."""
    return "".join(pieces).replace(SPACE, " ").strip()
