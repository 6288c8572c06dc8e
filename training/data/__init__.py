"""Registry of data sets, by name.

`load` reads a split of pictures, `load_text` of texts, `load_pairs` of pairs. A name is that of a
known set, the path of the user's own data, or `hf:NAME` (see `weir.training.data.hub`).
"""

from pathlib import Path

from weir.bundle.text import Rule, split_text
from weir.training.data.cifar10 import load_cifar10
from weir.training.data.cmudict import load_g014b2b, load_pronunciations, load_stress
from weir.training.data.conllu import load_treebank
from weir.training.data.digits import load_digits
from weir.training.data.download import DataFolders
from weir.training.data.hub import is_hub, load_hub_pairs, load_hub_pictures, load_hub_text
from weir.training.data.idx import FASHION_MNIST, MNIST, load_idx
from weir.training.data.image_folder import load_folder
from weir.training.data.images import ImageData, Split, take_own_split
from weir.training.data.multi30k import Language, load_multi30k
from weir.training.data.pairs import PairData, divide_pairs, load_pair_file
from weir.training.data.text import SequenceSplit, TextData, divide_text
from weir.training.data.text_files import load_file
from weir.training.data.trec import load_trec
from weir.training.errors import DataError

__all__ = [
    "DATA_SETS",
    "PAIR_SETS",
    "TEXT_SETS",
    "ImageData",
    "PairData",
    "SequenceSplit",
    "Split",
    "TextData",
    "load",
    "load_pairs",
    "load_text",
]

IDX_SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST)}
DATA_SETS = ("digits", *IDX_SOURCES, "cifar10")
"""The names of image sets; `load` takes any other name for a folder or a tar file."""

TEXT_SETS = ("trec", "trec-fine", "ewt", "cmudict-stress")
"""The names of text sets; `load_text` takes any other name for a file."""

PAIR_SETS = ("cmudict-pronounce", "g014b2b", "multi30k")
"""The names of pair sets; `load_pairs` takes any other name for a file."""


def load(
    name: str,
    split: Split = "train",
    *,
    height: int = 28,
    width: int = 28,
    channels: int = 1,
    short_side: int | None = None,
) -> ImageData:
    """Load one split of an image set.

    Args:
        name: one of `DATA_SETS`, or the path of a folder or tar file of images (see
            `weir.training.data.image_folder`). The caller takes a validation set from `train`.
        height, width, channels: the user's pictures are converted to them, a named set must have
            them.
        short_side: of the user's pictures, before the centre crop; None stretches them.

    Raises:
        DataError: unknown name, or broken files.
        DownloadError: files are not present and could not be downloaded.
    """
    if is_hub(name):
        return load_hub_pictures(
            name, split, height=height, width=width, channels=channels, short_side=short_side
        )
    if name not in DATA_SETS:
        root = Path(name)
        if not root.exists():
            known = ", ".join(DATA_SETS)
            raise DataError(f"{name}: neither a data set ({known}) nor a folder or tar file")
        return load_folder(
            root, split, height=height, width=width, channels=channels, short_side=short_side
        )
    if name == "digits":
        data = load_digits(split)
    elif name == "cifar10":
        data = load_cifar10(split, DataFolders.from_environment())
    else:
        data = load_idx(IDX_SOURCES[name], split, DataFolders.from_environment())
    if data.images.shape[1:] != (height, width, channels):
        got = " x ".join(str(size) for size in data.images.shape[1:])
        raise DataError(f"{name}: expected pictures of {height} x {width} x {channels}, got {got}")
    return data


def load_text(
    name: str,
    split: SequenceSplit = "train",
    *,
    lower: bool = False,
    column: str = "upos",
    rule: Rule = "words",
) -> TextData:
    """Load one split of a text set; errors as `load`.

    Args:
        name: one of `TEXT_SETS`, or the path of a file (see `weir.training.data.text_files`). A
            fifth of a file is held out as the test set, always the same rows.
        split: `train` or `test`; also `dev` for a set that has one. For other sets the caller takes
            a validation set from `train`, see `divide_text`.
        lower: whether a text to classify is made lower case; tokens that come split stay as they
            are.
        column: of CoNLL-U, the tag: `upos`, `xpos`, `deprel` or `feats:NAME`.
        rule: splits a text to classify; tokens that come split stay as they are.
    """
    if name in ("trec", "trec-fine"):
        folders = DataFolders.from_environment()
        return load_trec(split, folders, is_fine=name == "trec-fine", lower=lower, rule=rule)
    if name == "ewt":
        return load_treebank(split, DataFolders.from_environment(), column=column)
    if name == "cmudict-stress":
        return load_stress(split)
    if is_hub(name):
        return load_hub_text(
            name, split, lambda text: split_text(text.lower() if lower else text, rule)
        )
    if not Path(name).is_file():
        raise DataError(f"{name}: neither a text set ({', '.join(TEXT_SETS)}) nor a file")
    if split == "dev":
        raise DataError(f"{name}: expected the split train or test, got dev")
    data = load_file(Path(name), lower=lower, column=column, rule=rule)
    return take_own_split(data, split, divide_text)


def load_pairs(
    name: str,
    split: SequenceSplit = "train",
    *,
    target_data: str | None = None,
    stress: bool = False,
    source_language: Language = "de",
    target_language: Language = "en",
) -> PairData:
    """Load one split of a set of pairs; errors as `load`.

    Args:
        name: one of `PAIR_SETS`, or the path of a file (see `weir.training.data.pairs`). A fifth of
            a file's sources is held out as the test set, always the same ones.
        split: `train` or `test`; also `dev` for `multi30k`. For other sets the caller takes a
            validation set from `train`, see `divide_pairs`.
        stress: whether the phonemes of `cmudict-pronounce` keep their stress.
    """
    if (name in PAIR_SETS or is_hub(name)) and target_data is not None:
        raise DataError(f"{name}: has its own targets, got {target_data} too")
    if name == "cmudict-pronounce":
        return load_pronunciations(split, stress=stress)
    if name == "g014b2b":
        return load_g014b2b(split, DataFolders.from_environment())
    if name == "multi30k":
        return load_multi30k(
            split,
            DataFolders.from_environment(),
            source_language=source_language,
            target_language=target_language,
        )
    if is_hub(name):
        return load_hub_pairs(name, split)
    return _load_own_pairs(name, split, target_data)


def _load_own_pairs(name: str, split: SequenceSplit, target_data: str | None) -> PairData:
    if not Path(name).is_file():
        raise DataError(f"{name}: neither a set of pairs ({', '.join(PAIR_SETS)}) nor a file")
    if target_data is not None and not Path(target_data).is_file():
        raise DataError(f"{target_data}: expected a file of targets, got none")
    if split == "dev":
        raise DataError(f"{name}: expected the split train or test, got dev")
    data = load_pair_file(Path(name), Path(target_data) if target_data is not None else None)
    return take_own_split(data, split, divide_pairs)
