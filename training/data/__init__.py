"""The data sets by name: `load` gives one split of pictures, `load_text` of texts, `load_pairs` of pairs of them.

Known sets or your own.
"""

from pathlib import Path

from weir.training.data.cifar10 import load_cifar10
from weir.training.data.cmudict import load_stress
from weir.training.data.digits import load_digits
from weir.training.data.download import Places
from weir.training.data.idx import FASHION_MNIST, MNIST, load_idx
from weir.training.data.image_folder import load_folder
from weir.training.data.images import ImageData, Split
from weir.training.data.lines import load_file
from weir.training.data.multi30k import Language, load_multi30k
from weir.training.data.pairfile import load_pair_file
from weir.training.data.pairs import PairData, divide_pairs
from weir.training.data.pronunciations import load_g014b2b, load_pronunciations
from weir.training.data.text import SequenceSplit, TextData, divide_text
from weir.training.data.trec import load_trec
from weir.training.data.treebank import load_treebank
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
"""The names `load` knows; any other is taken for the path of a folder or a tar file."""

TEXT_SETS = ("trec", "trec-fine", "ewt", "cmudict-stress")
"""The names `load_text` knows; any other is taken for the path of a file."""

PAIR_SETS = ("cmudict-pronounce", "g014b2b", "multi30k")
"""The names `load_pairs` knows; any other is taken for the path of a file."""
OWN_TEST_SHARE = 0.2
OWN_TEST_SEED = 1998


def load(
    name: str,
    split: Split = "train",
    *,
    height: int = 28,
    width: int = 28,
    channels: int = 1,
    short_side: int | None = None,
) -> ImageData:
    """One split of a data set.

    Args:
        name: one of `DATA_SETS`, or the path of a folder or tar file of images (see `weir.training.data.image_folder`).
        split: `train` or `test`; a validation set is taken from `train` by whoever needs one.
        height: in pixels; your own pictures are brought to it, a named set must have it.
        width: likewise.
        channels: 1 grey or 3 colours, likewise.
        short_side: of your own pictures, before their middle is cut out; none stretches them.

    Raises:
        DataError: unknown name, or broken files.
        DownloadError: files that are neither here nor could be fetched.
    """
    if name not in DATA_SETS:
        place = Path(name)
        if not place.exists():
            known = ", ".join(DATA_SETS)
            raise DataError(f"{name}: neither a data set ({known}) nor a folder or tar file")
        return load_folder(
            place, split, height=height, width=width, channels=channels, short_side=short_side
        )
    if name == "digits":
        data = load_digits(split)
    elif name == "cifar10":
        data = load_cifar10(split, Places.from_environment())
    else:
        data = load_idx(IDX_SOURCES[name], split, Places.from_environment())
    if data.images.shape[1:] != (height, width, channels):
        found = " x ".join(str(size) for size in data.images.shape[1:])
        raise DataError(f"{name}: pictures are {found}, expected {height} x {width} x {channels}")
    return data


def load_text(
    name: str, split: SequenceSplit = "train", *, lower: bool = False, column: str = "upos"
) -> TextData:
    """One split of a text set.

    Args:
        name: one of `TEXT_SETS`, or the path of a file of yours (see `weir.training.data.lines`). Of that a fifth
            is held out as the test set, always the same rows.
        split: `train` or `test`; `dev` too where a set comes with it. Elsewhere a validation set is taken from
            `train` by whoever needs one, see `divide_text`.
        lower: whether a text to classify is made lower case; tokens that come cut stay as they are.
        column: of CoNLL-U, which tag: `upos`, `xpos`, `deprel` or `feats:NAME`.

    Raises:
        DataError: unknown name, a split there is not, or broken files.
        DownloadError: files that are neither here nor could be fetched.
    """
    if name in ("trec", "trec-fine"):
        places = Places.from_environment()
        return load_trec(split, places, is_fine=name == "trec-fine", lower=lower)
    if name == "ewt":
        return load_treebank(split, Places.from_environment(), column=column)
    if name == "cmudict-stress":
        return load_stress(split)
    if not Path(name).is_file():
        raise DataError(f"{name}: neither a text set ({', '.join(TEXT_SETS)}) nor a file")
    if split == "dev":
        raise DataError(f"{name}: expected the split train or test, found dev")
    data = load_file(Path(name), lower=lower, column=column)
    division = divide_text(data, OWN_TEST_SHARE, OWN_TEST_SEED)
    return data.take(division.kept if split == "train" else division.held_out)


def load_pairs(
    name: str,
    split: SequenceSplit = "train",
    *,
    target_data: str | None = None,
    stress: bool = False,
    source_language: Language = "de",
    target_language: Language = "en",
) -> PairData:
    """One split of a set of pairs.

    Args:
        name: one of `PAIR_SETS`, or the path of a file of yours (see `weir.training.data.pairfile`). Of that a fifth
            of the sources is held out as the test set, always the same ones.
        split: `train` or `test`; `dev` too of `multi30k`. Elsewhere a validation set is taken from `train` by
            whoever needs one, see `divide_pairs`.
        target_data: the path of a file of targets, where yours has the sources only.
        stress: whether the phonemes of `cmudict-pronounce` keep it.
        source_language: of `multi30k`.
        target_language: likewise.

    Raises:
        DataError: unknown name, a split there is not, or broken files.
        DownloadError: files that are neither here nor could be fetched.
    """
    if name in PAIR_SETS and target_data is not None:
        raise DataError(f"{name}: has its own targets, found {target_data} too")
    if name == "cmudict-pronounce":
        return load_pronunciations(split, stress=stress)
    if name == "g014b2b":
        return load_g014b2b(split, Places.from_environment())
    if name == "multi30k":
        return load_multi30k(
            split,
            Places.from_environment(),
            source_language=source_language,
            target_language=target_language,
        )
    return _load_own_pairs(name, split, target_data)


def _load_own_pairs(name: str, split: SequenceSplit, target_data: str | None) -> PairData:
    if not Path(name).is_file():
        raise DataError(f"{name}: neither a set of pairs ({', '.join(PAIR_SETS)}) nor a file")
    if target_data is not None and not Path(target_data).is_file():
        raise DataError(f"{target_data}: expected a file of targets, found none")
    if split == "dev":
        raise DataError(f"{name}: expected the split train or test, found dev")
    data = load_pair_file(Path(name), Path(target_data) if target_data is not None else None)
    division = divide_pairs(data, OWN_TEST_SHARE, OWN_TEST_SEED)
    return data.take(division.kept if split == "train" else division.held_out)
