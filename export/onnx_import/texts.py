"""Texts in front of an imported graph: a tokenizer.json and the inputs that it fills."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weir.bundle.sequences import Tokenisation
from weir.export.errors import ExportError
from weir.export.onnx_import.spec import ImportSpec
from weir.export.onnx_import.tensor_specs import TensorSpec
from weir.export.tokenizer_file import TokenizerFile

# As the library `transformers` names them.
_TOKENS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"


@dataclass(frozen=True, slots=True)
class TextInputs:
    """The inputs that a tokenizer.json fills.

    Attributes:
        tokenizer: with the names of the graph's inputs.
        places: the position of the axis of tokens, by input.
    """

    tokenizer: TokenizerFile
    places: Mapping[str, int]

    @property
    def tokenisation(self) -> Tokenisation:
        """The conversion of a text, for the contract."""
        return self.tokenizer.tokenisation


def text_inputs(spec: ImportSpec, inputs: Sequence[TensorSpec]) -> TextInputs | None:
    """The inputs of a graph that reads texts, None without a tokenizer.

    ExportError unless the graph has token ids, and beside them a mask and token types at most.
    """
    if spec.tokenizer is None:
        return None
    names = [each.name for each in inputs]
    mask = spec.mask or (_MASK if _MASK in names else None)
    types = _TYPES if _TYPES in names else None
    tokens = [name for name in names if name not in (mask, types)]
    if len(tokens) != 1:
        raise ExportError(
            f"tokenizer: expected inputs {_TOKENS}, {_MASK} and {_TYPES}, got {sorted(names)}"
        )
    tokenizer = TokenizerFile.read(
        spec.tokenizer,
        maximum=spec.maximum,
        tokens=tokens[0],
        attention_mask=mask,
        token_type_ids=types,
    )
    return TextInputs(tokenizer, dict.fromkeys(tokenizer.inputs, 1))
