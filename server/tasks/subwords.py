"""Texts → subwords, by the sentencepiece model of a bundle: the only importer of sentencepiece."""

from typing import TYPE_CHECKING

from weir.server.errors import ModelLoadError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SPACE = "\u2581"
"""Stands for white space in a piece; one in a text is taken for white space too."""


class SubwordCutter:
    """Cuts texts by one model."""

    def __init__(self, processor: "SentencePieceProcessor") -> None:
        self._processor = processor

    def cut(self, text: str) -> list[str]:
        """The pieces of a text; a run of characters the model never saw is a piece of its own."""
        pieces: list[str] = self._processor.encode(text, out_type=str)
        return pieces


def open_model(model: bytes) -> SubwordCutter:
    """What cuts by a model.

    Raises:
        ModelLoadError: the bytes are no model, or sentencepiece is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"tokenisation: subwords need {error.name}: pip install 'weir[server]'"
        ) from error
    try:
        return SubwordCutter(SentencePieceProcessor(model_proto=model))
    except RuntimeError as error:
        raise ModelLoadError(
            f"tokenisation: expected a sentencepiece model, got {error}"
        ) from error
