"""Multi30k: captions of photos with translations, between English, German and French.

D. Elliott et al., "Multi30K: Multilingual English-German Image Descriptions", 2016; French by D.
Elliott et al., 2017. 29,000 sentences for training, 1,014 for development and the 1,000 of
`test_2016_flickr`, untokenised, in original case. No licence is stated; the photos are for research
and education.
"""

from typing import Literal, get_args

from weir.training.data.download import DataFolders, RemoteFile, locate, remote_files
from weir.training.data.images import combine_checksums
from weir.training.data.pairs import PairData, read_parallel
from weir.training.data.text import SequenceSplit
from weir.training.errors import DataError

Language = Literal["de", "en", "fr"]

NAME = "multi30k"
_REMOTE = remote_files(
    "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d/data/task1/raw/",
    """\
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6 637044 train.de.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a 24681 val.de.gz
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8 22890 test_2016_flickr.de.gz
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f 568929 train.en.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28 21650 val.en.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9 21077 test_2016_flickr.en.gz
622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c 604242 train.fr.gz
ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9 23001 val.fr.gz
6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90 22310 test_2016_flickr.fr.gz
""",
)
_NAMES: dict[SequenceSplit, str] = {"train": "train", "dev": "val", "test": "test_2016_flickr"}
FILES: dict[tuple[SequenceSplit, Language], RemoteFile] = {
    (split, language): _REMOTE[f"{name}.{language}.gz"]
    for split, name in _NAMES.items()
    for language in get_args(Language)
}


def load_multi30k(
    split: SequenceSplit,
    folders: DataFolders,
    *,
    source_language: Language = "de",
    target_language: Language = "en",
) -> PairData:
    """Find, verify and read one split, a row per sentence; errors as `locate`."""
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
