"""Test sets of classes: pictures, texts and sequences as requests with known classes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from weir.client.errors import UsageError
from weir.evaluate.test_set import NO_TARGET, ClassifiedSet, LabelledRequest, Selection, select_rows

if TYPE_CHECKING:
    from weir.bundle.reader import Bundle
    from weir.bundle.text import Rule
    from weir.client.results import ModelMetadata
    from weir.training.data import ImageData, TextData
    from weir.training.text.batches import Sequences
    from weir.training.text.recipes import TokenSettings


def of_pictures(data: "ImageData", input_name: str, rows: int) -> ClassifiedSet:
    """Pictures of a test split, `rows` per request."""
    requests = [
        LabelledRequest(
            {input_name: data.images[first : first + rows]}, data.labels[first : first + rows]
        )
        for first in range(0, len(data.labels), rows)
    ]
    return ClassifiedSet(requests, f"the test split of {data.name}")


def of_sequences(data: str, bundle: "Bundle", column: str | None, rows: int) -> ClassifiedSet:
    """Sequences as the bundle's ids, sorted by length; UsageError for data of another task."""
    import torch

    selected = _select_sequences(data, bundle, column)
    packed = selected.rows
    names = ["frames" if packed.forms is None else "tokens", "lengths", "characters"]
    requests = []
    for chosen in torch.split(torch.argsort(packed.lengths, stable=True), rows):
        batch = packed.take(chosen)
        inputs = {name: tensor.numpy() for name, tensor in zip(names, batch.inputs, strict=False)}
        requests.append(LabelledRequest(inputs, batch.targets.numpy()))
    return ClassifiedSet(requests, selected.origin, selected.is_unseen)


def _select_sequences(data: str, bundle: "Bundle", column: str | None) -> "Selection[Sequences]":
    from weir.training.data import load
    from weir.training.data.vocabulary import Vocabulary
    from weir.training.text.batches import pack
    from weir.training.text.experiment import pack_rows

    contract = bundle.contract
    if contract.tokenisation and contract.tokenisation.rule == "tokenizer-json":
        # A test set has words, and a tokenizer.json reads the text with its spaces and marks.
        raise UsageError(
            f"{contract.architecture}: expected a bundle with the vocabulary of its training, got "
            f"one with {contract.tokenisation.model}: `weir classify-text --json` answers its texts"
        )
    if not contract.vocabularies:
        return Selection(pack_rows(load(data, "test")), f"the test set of {data}")
    texts = _select_texts(data, bundle, column)
    entries = {name: bundle.vocabulary(name) or [] for name in contract.vocabularies}
    packed = pack(
        texts.rows,
        bundle.labels("logits") or [],
        {name: Vocabulary(tuple(lines)) for name, lines in entries.items()},
        _settings(bundle),
    )
    return Selection(packed, texts.origin, texts.is_unseen)


def _select_texts(data: str, bundle: "Bundle", column: str | None) -> "Selection[TextData]":
    """The texts to send, labelled for the bundle's task."""
    from weir.training.data import TEXT_SETS, load_text
    from weir.training.data.text_files import load_file

    contract, of_conllu = bundle.contract, column or "upos"
    rule = contract.tokenisation.rule if contract.tokenisation else "words"
    # The other rules are of pairs of texts, or of texts with a tokenizer.json.
    of_text: Rule = rule if rule in ("words", "spaces", "letters") else "words"
    selected = select_rows(
        data,
        TEXT_SETS,
        contract.training.data_checksum if contract.training else None,
        read_all=lambda: load_file(Path(data), column=of_conllu, rule=of_text),
        read_test=lambda: load_text(data, "test", column=of_conllu, rule=of_text),
    )
    found, known = selected.rows, bundle.labels("logits") or []
    if found.is_tagged != (contract.task == "tagging"):
        raise UsageError(f"{data}: not the kind of data that {contract.architecture} answers")
    if set(found.classes).isdisjoint(known):
        raise UsageError(
            f"{data}: expected labels such as {', '.join(known[:1])}, got {found.classes[0]}"
        )
    return selected


def _settings(bundle: "Bundle") -> "TokenSettings":
    """The tokenization settings of the contract."""
    from weir.training.text.recipes import TokenSettings

    contract = bundle.contract
    letters = contract.padded_axes.get("letters")
    return TokenSettings(
        size=1,
        lower=contract.tokenisation.lower if contract.tokenisation else False,
        spelling=letters is not None,
        most_letters=letters.maximum if letters else 1,
    )


def input_of(metadata: "ModelMetadata") -> str:
    """The input of a picture model; UsageError if the model has another form."""
    shapes = [tensor.shape for tensor in metadata.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or -1 in shapes[0][1:]:
        raise UsageError(
            f"{metadata.name}: expected one input [batch, height, width, channels], got {shapes}; "
            "a model of sequences or series needs --bundle"
        )
    return metadata.inputs[0].name


def count_right(request: LabelledRequest, answer: NDArray[Any]) -> int:
    """Number of right answers; scores answer by their maximum."""
    chosen = answer.argmax(axis=-1) if answer.dtype.kind == "f" else answer
    return int(((chosen == request.targets) & (request.targets != NO_TARGET)).sum())
