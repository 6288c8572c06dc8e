"""Data sets of the Hugging Face hub, and folders in their format: `--data hf:NAME`.

    hf:NAME, hf:OWNER/NAME      a data set of the hub
    hf:OWNER/NAME/CONFIG        one of its configurations
    hf:FOLDER                   a folder that `save_to_disk` of the package datasets wrote, or files
                                that its `load_dataset` reads: Parquet, CSV, JSON lines, pictures
    …:INPUT,TARGET              the same, with its two columns (of a translation: its languages)

Without names of columns, their types must leave no choice:

    Image and ClassLabel                 pictures and their classes
    string and ClassLabel                texts and their classes
    List(string) and List(ClassLabel)    words and their tags

A named column of classes or tags may hold strings, whole numbers or booleans too. Pairs are always
named, because the types do not say which side is the source. The splits train, validation and test
are used as they are; one that is missing, or has no labels, is held out of train as for files. Code
of a data set is never run.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from weir.training.data.image_folder import read_pictures
from weir.training.data.images import (
    OWN_TEST_SEED,
    OWN_TEST_SHARE,
    ImageData,
    Rows,
    combine_checksums,
    divide,
    take_own_split,
)
from weir.training.data.pairs import Pair, PairData, divide_pairs
from weir.training.data.text import SequenceSplit, TextData, TextRow, divide_text
from weir.training.errors import DataError, MissingExtra

PREFIX = "hf:"
_SPLIT_NAMES: dict[SequenceSplit, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
_TEXT_TYPES = ("string", "large_string")
_NAMED_CLASS_TYPES = (*_TEXT_TYPES, "bool", "int8", "int16", "int32", "int64")

_Kind = Literal["picture", "text", "tagged", "pair"]
_WANTED: dict[_Kind, str] = {
    "picture": "a column of pictures (Image) and one of classes (ClassLabel)",
    "text": "a column of texts (string) and one of classes (ClassLabel)",
    "tagged": "a column of words (List(string)) and one of tags (List(ClassLabel))",
    "pair": "two columns of texts (string), or two languages of a translation",
}


@dataclass(frozen=True, slots=True)
class HubName:
    """The parts of `hf:SOURCE/CONFIG:INPUT,TARGET`.

    source: a name of the hub, or the absolute path of a folder.
    columns: the names of input and target; None: their types decide.
    """

    source: str
    is_folder: bool
    config: str | None = None
    columns: tuple[str, str] | None = None

    @staticmethod
    def parse(name: str) -> "HubName":
        """Read a name; `DataError` if it has another form."""
        text = name.removeprefix(PREFIX)
        source, colon, columns = (text, "", "") if Path(text).exists() else text.partition(":")
        if not source:
            raise DataError(f"{name}: expected hf:NAME or hf:FOLDER, got no name")
        if not colon:
            named = None
        else:
            both = [column.strip() for column in columns.split(",")]
            if len(both) != 2 or not all(both):
                raise DataError(f"{name}: expected hf:NAME:INPUT,TARGET, got {columns!r}")
            named = (both[0], both[1])
        if Path(source).is_dir():
            return HubName(str(Path(source).resolve()), is_folder=True, columns=named)
        parts = source.split("/")
        if source.startswith(("/", "./", "../", "~")) or len(parts) > 3 or not all(parts):
            raise DataError(
                f"{source}: expected a folder, or NAME, OWNER/NAME or OWNER/NAME/CONFIG"
            )
        config = parts[2] if len(parts) == 3 else None
        return HubName("/".join(parts[:2]), is_folder=False, config=config, columns=named)

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        columns = f":{','.join(self.columns)}" if self.columns else ""
        return f"{PREFIX}{self.source}{config}{columns}"


def is_hub(name: str) -> bool:
    """Whether a data set's name is one of this module."""
    return name.startswith(PREFIX)


def has_validation(name: str) -> bool:
    """Whether the data set comes with validation rows; errors as `load_hub_text`."""
    return is_hub(name) and _HubSet.open(name).split("dev") is not None


def load_hub_text(
    name: str, split: SequenceSplit, tokenise: Callable[[str], Sequence[str]]
) -> TextData:
    """Load one split of texts with classes, or of words with tags.

    Raises:
        MissingExtra: the package datasets is not installed.
        DataError: no such data set, or not of this kind; the message says what to do.
    """
    found = _HubSet.open(name)
    kind, columns = found.choose("text", "tagged")
    source = found.source(split, columns)
    texts = [
        _tagged_row(row) if kind == "tagged" else _text_row(row, tokenise)
        for row in found.rows(source, columns)
    ]
    data = TextData.of(name, texts, is_tagged=kind == "tagged", checksum=_checksum(texts))
    return data if source.is_whole else take_own_split(data, split, divide_text)


def load_hub_pairs(name: str, split: SequenceSplit) -> PairData:
    """Load one split of pairs; errors as `load_hub_text`."""
    found = _HubSet.open(name)
    _, columns = found.choose("pair")
    source = found.source(split, columns)
    pairs = [
        Pair(_text(row.given, row), _text(row.target, row)) for row in found.rows(source, columns)
    ]
    data = PairData.joined(name, pairs, checksum=_checksum(pairs))
    return data if source.is_whole else take_own_split(data, split, divide_pairs)


def load_hub_pictures(
    name: str,
    split: SequenceSplit,
    *,
    height: int,
    width: int,
    channels: int,
    short_side: int | None,
) -> ImageData:
    """Load one split of pictures with classes, converted as those of a folder.

    Errors as `load_hub_text`.
    """
    found = _HubSet.open(name)
    _, columns = found.choose("picture")
    own = found.source(split, columns)
    listed = {
        source: [
            (hashlib.sha256(row.given).hexdigest(), row.target)
            for row in found.rows(source, columns)
        ]
        for source in {found.source(each, columns) for each in _SPLIT_NAMES}
    }
    classes = found.classes(columns[1]) or tuple(
        sorted({label for rows in listed.values() for _, label in rows})
    )
    places = {label: place for place, label in enumerate(classes)}
    labels = np.array([places[label] for _, label in listed[own]], np.int64)
    chosen = np.arange(len(labels))
    if not own.is_whole:
        keys = [key for key, _ in listed[own]]
        division = divide(labels, OWN_TEST_SHARE, OWN_TEST_SEED, keys)
        chosen = division.kept if split == "train" else division.held_out
    checksums = {source.name: _checksum(rows) for source, rows in listed.items()}
    rows = found.rows(own, columns, chosen)
    images, skipped = read_pictures(
        ((place, row.place, row.given) for place, row in enumerate(rows)),
        len(chosen),
        (width, height),
        channels,
        short_side,
    )
    readable = np.setdiff1d(np.arange(len(chosen)), list(skipped))
    return ImageData(
        name=name,
        images=images[readable],
        labels=labels[chosen][readable],
        classes=classes,
        checksum=combine_checksums((digest, at) for at, digest in checksums.items()),
        split_checksum=checksums[own.name],
        skipped=tuple(skipped.values()),
    )


class _Row(NamedTuple):
    """Input and target of a row, classes by name and pictures as files, and its place."""

    given: Any
    target: Any
    place: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the rows of a split come from: its own rows, or those that it is held out of."""

    name: str
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _HubSet:
    """The opened splits of a data set, by their names there, and the features of their columns."""

    name: HubName
    splits: Mapping[str, Any]
    features: Mapping[str, Any]

    @staticmethod
    def open(name: str) -> "_HubSet":
        parsed = HubName.parse(name)
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"--data {name}: {error.name} is not installed: pip install 'weir[datasets]'"
            ) from error
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        try:
            opened = _open(parsed)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            said = " ".join(str(error).split())
            raise DataError(
                f"{name}: expected a data set of the hub or a folder, got {said}"
            ) from error
        if isinstance(opened, datasets.Dataset):
            opened = {"train": opened}
        splits = dict(opened)
        if len(splits) == 1:
            splits = {"train": next(iter(splits.values()))}
        if "train" not in splits:
            raise DataError(f"{name}: expected the split train, got {', '.join(splits)}")
        return _HubSet(parsed, splits, splits["train"].features)

    def split(self, split: SequenceSplit) -> str | None:
        """The name of a split in this data set, if it has it."""
        return next((name for name in _SPLIT_NAMES[split] if name in self.splits), None)

    def source(self, split: SequenceSplit, columns: tuple[str, str]) -> _Source:
        """The source of a split; train is whole if nothing is held out of it for the test."""
        test = self.split("test")
        if test and not self._is_labelled(test, columns):
            test = None
        own = {"train": None, "dev": self.split("dev"), "test": test}[split]
        return _Source(own, is_whole=True) if own else _Source("train", is_whole=test is not None)

    def _is_labelled(self, split: str, columns: tuple[str, str]) -> bool:
        rows = self.splits[split]
        if columns[1] not in rows.features:
            return self._translation(*columns) is not None
        return any(label not in {None, -1} for label in map(_hashable, rows[columns[1]]))

    def rows(
        self, source: _Source, columns: tuple[str, str], chosen: Rows | None = None
    ) -> Iterator[_Row]:
        """Yield the rows of a source, or those chosen."""
        import datasets

        given, target = columns
        pair = self._translation(*columns)
        rows = self.splits[source.name].select_columns([pair] if pair else [given, target])
        features = self.features
        is_picture = given in features and isinstance(features[given], datasets.Image)
        if is_picture:
            rows = rows.cast_column(given, datasets.Image(decode=False))
        numbers = range(len(rows)) if chosen is None else chosen.tolist()
        for number, row in zip(numbers, rows.select(numbers), strict=True):
            place = f"{self.name}, {source.name}, row {number}"
            if pair:
                texts = row[pair]
                yield _Row(texts[given], texts[target], place)
            else:
                value = _file_of(row[given], place) if is_picture else row[given]
                yield _Row(value, _class_names(features[target], row[target], place), place)

    def classes(self, column: str) -> tuple[str, ...]:
        """The names of a column of classes, if it declares them."""
        return tuple(getattr(self.features[column], "names", None) or ())

    def choose(self, *kinds: _Kind) -> tuple[_Kind, tuple[str, str]]:
        """The kind of the rows, one of `kinds`, and the names of their two columns."""
        named = self.name.columns
        languages = chain.from_iterable(
            getattr(each, "languages", None) or () for each in self.features.values()
        )
        pairs = [named] if named else list(permutations([*self.features, *languages], 2))
        fitting = [
            (kind, pair)
            for kind in kinds
            for pair in pairs
            if self._fits(kind, pair, is_named=named is not None)
        ]
        if len(fitting) == 1:
            return fitting[0]
        is_possible = any(self._fits(kind, pair, is_named=True) for kind in kinds for pair in pairs)
        wanted = ", or ".join(_WANTED[kind] for kind in kinds)
        hint = f"; name two of them as {self.name}:INPUT,TARGET" if is_possible else ""
        raise DataError(f"{self.name}: expected {wanted}; there are {self._listed()}{hint}")

    def _fits(self, kind: _Kind, columns: tuple[str, str], *, is_named: bool) -> bool:
        """Whether two columns, or languages, are of a kind; the user may have named them."""
        import datasets

        if kind == "pair" and not is_named:
            return False
        if kind == "pair" and self._translation(*columns):
            return True
        if columns[0] == columns[1] or not all(column in self.features for column in columns):
            return False
        given, target = (self.features[column] for column in columns)
        if kind == "tagged":
            if not isinstance(given, datasets.List) or not isinstance(target, datasets.List):
                return False
            given, target = given.feature, target.feature
        is_text = _dtype(given) in _TEXT_TYPES
        if kind == "pair":
            return is_text and _dtype(target) in _TEXT_TYPES
        is_class = isinstance(target, datasets.ClassLabel) or (
            is_named and _dtype(target) in _NAMED_CLASS_TYPES
        )
        return is_class and (isinstance(given, datasets.Image) if kind == "picture" else is_text)

    def _translation(self, *languages: str) -> str | None:
        """The column that holds texts in all of these languages."""
        import datasets

        for name, feature in self.features.items():
            if isinstance(feature, datasets.Translation) and {*languages} <= {*feature.languages}:
                return name
        return None

    def _listed(self) -> str:
        return ", ".join(f"{name} ({_type(each)})" for name, each in self.features.items())


def _open(name: HubName) -> Any:
    import datasets

    if name.is_folder:
        marks = ("dataset_dict.json", "state.json")
        if any((Path(name.source) / mark).is_file() for mark in marks):
            return datasets.load_from_disk(name.source)
    return datasets.load_dataset(name.source, name.config)


def _dtype(feature: Any) -> str:
    """The type of a column of plain values; empty for others."""
    import datasets

    return str(feature.dtype) if isinstance(feature, datasets.Value) else ""


def _type(feature: Any) -> str:
    import datasets

    if isinstance(feature, datasets.List):
        return f"List({_type(feature.feature)})"
    if isinstance(feature, datasets.Translation):
        return f"Translation of {', '.join(feature.languages)}"
    return _dtype(feature).removeprefix("large_") or type(feature).__name__


def _class_names(feature: Any, value: Any, place: str) -> Any:
    """Classes as their names: of a row, or of each of its words; of a pair, the target."""
    if isinstance(value, list):
        return [_class_name(feature.feature, each, place) for each in value]
    return _class_name(feature, value, place)


def _class_name(feature: Any, value: Any, place: str) -> str:
    if value is None or value == -1:
        raise DataError(f"{place}: expected a label, got none")
    name = feature.int2str(value) if hasattr(feature, "int2str") else str(value).strip()
    if not name:
        raise DataError(f"{place}: expected a label, got {value!r}")
    return str(name)


def _hashable(label: Any) -> Any:
    return tuple(label) if isinstance(label, list) else label


def _text(value: Any, row: _Row) -> str:
    if not value or not value.strip():
        raise DataError(f"{row.place}: expected text, got {value!r}")
    return str(value).strip()


def _text_row(row: _Row, tokenise: Callable[[str], Sequence[str]]) -> TextRow:
    tokens = tuple(tokenise(_text(row.given, row)))
    if not tokens:
        raise DataError(f"{row.place}: expected words, got {row.given!r}")
    return TextRow(tokens, (row.target,))


def _tagged_row(row: _Row) -> TextRow:
    words, tags = row.given, row.target
    if not words or len(words) != len(tags) or not all(words):
        raise DataError(f"{row.place}: expected a tag for each word, got {words!r} and {tags!r}")
    return TextRow(tuple(words), tuple(tags))


def _file_of(value: Mapping[str, Any] | None, place: str) -> bytes:
    """The file of a picture: in the data set, or beside it."""
    if value is None:
        raise DataError(f"{place}: expected a picture, got none")
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    try:
        return Path(value["path"]).read_bytes()
    except OSError as error:
        raise DataError(f"{place}: expected a picture, got {error}") from error


def _checksum(rows: Iterable[object]) -> str:
    """SHA-256 over rows, a line of JSON each."""
    found = hashlib.sha256()
    for row in rows:
        found.update(f"{json.dumps(row, ensure_ascii=False)}\n".encode())
    return found.hexdigest()
