"""Multi30k: captions of photos with translations, between English, German and French.

D. Elliott et al., "Multi30K: Multilingual English-German Image Descriptions", 2016; French by D.
Elliott et al., 2017. 29,000 sentences for training, 1,014 for development and the 1,000 of
`test_2016_flickr`, untokenised, in original case. No licence is stated; the photos are for research
and education.
"""

from typing import Literal

from weir.training.data.download import DataFolders, RemoteFile, locate
from weir.training.data.images import combine_checksums
from weir.training.data.pairs import PairData, read_parallel
from weir.training.data.text import SequenceSplit
from weir.training.errors import DataError

Language = Literal["de", "en", "fr"]

NAME = "multi30k"
_BASE = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d/data/task1/raw/"
FILES: dict[tuple[SequenceSplit, Language], RemoteFile] = {
    ("train", "de"): RemoteFile(
        _BASE + "train.de.gz",
        637_044,
        "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    ),
    ("dev", "de"): RemoteFile(
        _BASE + "val.de.gz",
        24_681,
        "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    ),
    ("test", "de"): RemoteFile(
        _BASE + "test_2016_flickr.de.gz",
        22_890,
        "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    ),
    ("train", "en"): RemoteFile(
        _BASE + "train.en.gz",
        568_929,
        "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    ),
    ("dev", "en"): RemoteFile(
        _BASE + "val.en.gz",
        21_650,
        "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    ),
    ("test", "en"): RemoteFile(
        _BASE + "test_2016_flickr.en.gz",
        21_077,
        "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    ),
    ("train", "fr"): RemoteFile(
        _BASE + "train.fr.gz",
        604_242,
        "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    ),
    ("dev", "fr"): RemoteFile(
        _BASE + "val.fr.gz",
        23_001,
        "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    ),
    ("test", "fr"): RemoteFile(
        _BASE + "test_2016_flickr.fr.gz",
        22_310,
        "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
    ),
}


def load_multi30k(
    split: SequenceSplit,
    folders: DataFolders,
    *,
    source_language: Language = "de",
    target_language: Language = "en",
) -> PairData:
    """Find, verify and read one split; one row per sentence.

    Raises:
        DataError: twice the same language, or a file is not the canonical one.
        DownloadError: a file is not present and could not be downloaded.
    """
    if source_language == target_language:
        raise DataError(f"{NAME}: expected two languages, got {source_language} twice")
    languages: tuple[Language, Language] = (source_language, target_language)
    source, target = (locate(NAME, FILES[split, language], folders) for language in languages)
    files = (file for (_, language), file in FILES.items() if language in languages)
    return PairData.of(
        f"{NAME}-{source_language}-{target_language}",
        read_parallel(source, target),
        checksum=combine_checksums((file.name, file.sha256) for file in files),
    )
