"""Test sets of classes: pictures, texts and sequences as requests with known classes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weir.client.errors import UsageError
from weir.evaluate.test_set import (
    ClassifiedSet,
    LabelledRequest,
    Origin,
    Selection,
    TextRequest,
    select_rows,
)

if TYPE_CHECKING:
    from weir.bundle.text import Rule
    from weir.client.results import ModelMetadata
    from weir.evaluate.model_description import ModelDescription
    from weir.training.data import ImageData, TextData

LEAST_KNOWN = 0.5
"""Share of the targets that must have a label of the model; below, the data are of another task."""
_SHOWN_LABELS = 3
# The server's limit of a request of `Tag`.
_MAX_TAGGED_TOKENS = 10_000


def of_pictures(
    data: str, metadata: "ModelMetadata", description: "ModelDescription", rows: int
) -> ClassifiedSet:
    """Pictures by the names of their classes, `rows` per request."""
    name = _picture_input(metadata)
    _, height, width, channels = metadata.inputs[0].shape
    preprocessing = description.contract.preprocessing if description.contract else None
    selected = _select_pictures(
        data,
        description,
        height=height,
        width=width,
        channels=channels,
        short_side=preprocessing.short_side if preprocessing else None,
    )
    images = selected.rows.images
    inputs = [{name: images[first : first + rows]} for first in range(0, len(images), rows)]
    return _of_classes(data, selected, inputs, description, "pictures")


def of_frames(data: str, description: "ModelDescription", rows: int) -> ClassifiedSet:
    """Grey pictures as sequences of their pixel rows, from the top."""
    selected = _select_pictures(data, description)
    frames = selected.rows.images[:, :, :, 0]
    lengths = np.full(len(frames), frames.shape[1])
    inputs = [
        {"frames": frames[first : first + rows], "lengths": lengths[first : first + rows]}
        for first in range(0, len(frames), rows)
    ]
    return _of_classes(data, selected, inputs, description, "sequences")


def _of_classes(
    data: str,
    selected: "Selection[ImageData]",
    inputs: Sequence[Mapping[str, NDArray[Any]]],
    description: "ModelDescription",
    unit: str,
) -> ClassifiedSet:
    """Requests with the names of the pictures' classes; UsageError if the model has others."""
    pictures, known = selected.rows, description.any_labels()
    labels = [pictures.classes[label] for label in pictures.labels.tolist()]
    if known:
        require_known(data, labels, known)
    requests, first = [], 0
    for each in inputs:
        end = first + len(next(iter(each.values())))
        requests.append(LabelledRequest(each, np.array(labels[first:end])))
        first = end
    remarks = _unknown_labels([(label,) for label in labels], known, unit)
    # Without labels, the model's classes are those of the data, by their number.
    return ClassifiedSet(requests, selected.origin, known or pictures.classes, unit, remarks)


def _select_pictures(
    data: str, description: "ModelDescription", **size: int | None
) -> "Selection[ImageData]":
    from weir.training.data import DATA_SETS, load
    from weir.training.data.image_folder import (
        has_test_folder,
        load_folder,
        require_few_skipped,
    )

    given: dict[str, Any] = {"height": 28, "width": 28, "channels": 1, **size}
    root = Path(data)
    is_own = data not in DATA_SETS and root.exists()
    whole = f"the test folder of {data}" if is_own and has_test_folder(root) else None
    selected = select_rows(
        data,
        DATA_SETS,
        description.training,
        read_all=lambda: load_folder(root, "all", **given),
        read_test=lambda: load(data, "test", **given),
        whole=whole,
    )
    require_few_skipped(data, selected.rows.skipped, len(selected.rows))
    return selected


def of_texts(
    data: str, description: "ModelDescription", column: str | None, rows: int
) -> ClassifiedSet:
    """Texts to classify or sentences to tag, split into tokens; UsageError for another task."""
    contract = description.contract
    if contract is None:
        raise TypeError(description)
    tokenisation = contract.tokenisation
    match rule := tokenisation.rule if tokenisation else "words":
        case "tokenizer-json" | "subwords":
            # A test set has words, and these rules read the text with its spaces and marks.
            model = tokenisation.model if tokenisation else None
            raise UsageError(
                f"{contract.architecture}: expected a bundle with the vocabulary of its training, "
                f"got one with {model}: `weir classify-text --json` answers its texts"
            )
    trained_on = description.training.row_settings.get("column") if description.training else None
    used = column or str(trained_on or "upos")
    selected = _select_texts(data, description, used, rule)
    found, known = selected.rows, description.any_labels()
    is_tagging = contract.task == "tagging"
    if found.is_tagged != is_tagging:
        wanted, got = ("a tag for each word", "a label for each text")
        if not is_tagging:
            wanted, got = got, wanted
        raise UsageError(f"{data}: {contract.architecture} answers {wanted}, got {got}")
    columns = _Columns(used, str(trained_on or "")) if _has_columns(data) else None
    if known:
        require_known(data, list(chain.from_iterable(found.labels)), known, columns)
    unit = "sentences" if is_tagging else "texts"
    origin, remarks = selected.origin, _unknown_labels(found.labels, known, unit)
    if columns and trained_on and used != trained_on:
        origin = Origin(f"{origin.text}; tags of {used}, training had those of {trained_on}")
    longest = _longest(description)
    fitting = [row for row, tokens in enumerate(found.rows) if len(tokens) <= longest]
    if len(fitting) < len(found.rows):
        left_out = len(found.rows) - len(fitting)
        remarks.append(
            f"left out: {left_out:,} of {len(found.rows):,} rows, which have more than the "
            f"{longest} tokens that the model takes"
        )
        origin = Origin(origin.text)
    if not fitting:
        raise UsageError(f"{data}: expected rows of up to {longest} tokens, got none")
    requests = _text_requests(found, fitting, rows)
    return ClassifiedSet(requests, origin, known, unit, remarks)


def _select_texts(
    data: str, description: "ModelDescription", column: str, rule: "Rule"
) -> "Selection[TextData]":
    from weir.training.data import TEXT_SETS, load_text
    from weir.training.data.text_files import load_file

    return select_rows(
        data,
        TEXT_SETS,
        description.training,
        read_all=lambda: load_file(Path(data), column=column, rule=rule),
        read_test=lambda: load_text(data, "test", column=column, rule=rule),
    )


def _text_requests(found: "TextData", fitting: Sequence[int], rows: int) -> list[TextRequest]:
    """Requests of up to `rows` texts and of as many tokens as the server tags, shortest first."""
    ordered = sorted(fitting, key=lambda row: len(found.rows[row]))
    requests: list[TextRequest] = []
    while ordered:
        size, tokens = 0, 0
        while size < min(rows, len(ordered)):
            tokens += len(found.rows[ordered[size]])
            if size and tokens > _MAX_TAGGED_TOKENS:
                break
            size += 1
        chosen, ordered = ordered[:size], ordered[size:]
        requests.append(
            TextRequest([found.rows[row] for row in chosen], [found.labels[row] for row in chosen])
        )
    return requests


def _longest(description: "ModelDescription") -> int:
    """The most tokens of a row."""
    contract = description.contract
    tokens = contract.tokenisation.tokens if contract and contract.tokenisation else "tokens"
    axes = contract.padded_axes.values() if contract else ()
    return min(axis.maximum for axis in axes if tokens in axis.padding)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The column of CoNLL-U that is read, and the one of the training; empty if not recorded."""

    used: str
    trained_on: str


def _has_columns(data: str) -> bool:
    from weir.training.recipes import has_conllu

    return has_conllu(data)


def require_known(
    data: str, labels: Sequence[str], known: Sequence[str], columns: _Columns | None = None
) -> None:
    """Refuse data with other labels than the model's; UsageError shows some of both.

    Args:
        labels: of each target.
        known: the model's.
    """
    counts = Counter(labels)
    model_labels = frozenset(known)
    right = sum(count for label, count in counts.items() if label in model_labels)
    if right >= LEAST_KNOWN * len(labels):
        return
    others = [label for label, _ in counts.most_common() if label not in model_labels]
    kind = "labels"
    hint = ""
    if columns is not None:
        kind = f"tags of column {columns.used}"
        hint = (
            f"; the model was trained on the column {columns.trained_on}"
            if columns.trained_on
            else "; the column of its training is not recorded, --column chooses another"
        )
    raise UsageError(
        f"{data}: expected labels of the model, such as {_some(known)}; got {kind} such as "
        f"{_some(others)}, and {right:,} of {len(labels):,} are the model's{hint}"
    )


def _some(labels: Iterable[str]) -> str:
    return ", ".join(list(labels)[:_SHOWN_LABELS])


def _unknown_labels(rows: Sequence[Sequence[str]], known: Sequence[str], unit: str) -> list[str]:
    """A remark on the rows with labels that the model lacks, if there are some."""
    if not known:
        return []
    model_labels = frozenset(known)
    unknown = Counter(label for row in rows for label in row if label not in model_labels)
    if not unknown:
        return []
    affected = sum(not model_labels.issuperset(row) for row in rows)
    return [
        f"{affected:,} of {len(rows):,} {unit} have labels that the model lacks, which count as "
        f"wrong: {_some(label for label, _ in unknown.most_common())}"
        + (" …" if len(unknown) > _SHOWN_LABELS else "")
    ]


def _picture_input(metadata: "ModelMetadata") -> str:
    """The input of a picture model; UsageError if the model has another form."""
    shapes = [tensor.shape for tensor in metadata.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or -1 in shapes[0][1:]:
        raise UsageError(
            f"{metadata.name}: expected one input [batch, height, width, channels], got {shapes}; "
            "the server does not say what else the model reads: it needs --bundle"
        )
    return metadata.inputs[0].name


def labels_of(answer: NDArray[Any], labels: Sequence[str]) -> list[str]:
    """The label of each row's answer, which are class ids (rows,) or scores (rows, classes)."""
    chosen = answer.argmax(axis=-1) if answer.dtype.kind == "f" else answer
    return [labels[each] if each < len(labels) else str(each) for each in chosen.ravel().tolist()]
