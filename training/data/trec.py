"""TREC questions: 5,452 for training and 500 for test, in 6 coarse or 50 fine classes.

X. Li, D. Roth, "Learning Question Classifiers", COLING 2002, with its official split. A line is
`COARSE:fine question text ?`. The questions come split at spaces. They are split again by
`weir.bundle.text`, because the server splits the texts of its requests by that rule.

The training file is an ASCII copy (335,826 bytes) of the usual Latin-1 file. Questions and classes
agree.
"""

import re

from weir.bundle.text import Rule, split_text
from weir.training.data.download import DataFolders, RemoteFile, locate
from weir.training.data.images import combine_checksums
from weir.training.data.lines import Line, read_lines
from weir.training.data.text import SequenceSplit, TextData, TextRow
from weir.training.errors import DataError

NAME = "trec"
TRAIN = RemoteFile(
    "https://raw.githubusercontent.com/trangnt08/q_class_en/"
    "3ffc1b21503e89e5eab6bf12ab9eb46d16a14851/data/train_5500.label",
    335_826,
    "f96f211c9d180d3fa25b1841febd9be6f0a6fc65e5b6a99344b5946163b35009",
)
TEST = RemoteFile(
    "https://cogcomp.seas.upenn.edu/Data/QA/QC/TREC_10.label",
    23_354,
    "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
)
_LINE = re.compile(r"(?P<coarse>[A-Z]+):(?P<fine>[a-z]+) (?P<question>.*\S.*)")


def load_trec(
    split: SequenceSplit,
    folders: DataFolders,
    *,
    is_fine: bool = False,
    lower: bool = False,
    rule: Rule = "words",
) -> TextData:
    """Find, verify and read one split, in 6 classes, or 50 if `is_fine`; errors as `locate`."""
    if split == "dev":
        raise DataError(f"{NAME}: expected the split train or test, got dev")
    path = locate(NAME, TRAIN if split == "train" else TEST, folders)
    rows = [_read_question(line, rule, is_fine=is_fine, lower=lower) for line in read_lines(path)]
    digest = combine_checksums((file.name, file.sha256) for file in (TRAIN, TEST))
    name = f"{NAME}-fine" if is_fine else NAME
    return TextData.of(name, rows, is_tagged=False, checksum=digest)


def _read_question(line: Line, rule: Rule, *, is_fine: bool, lower: bool) -> TextRow:
    match = _LINE.fullmatch(line.text)
    if match is None:
        raise DataError(f"{line.place}: expected COARSE:fine and a question, got {line.text!r}")
    label = f"{match['coarse']}:{match['fine']}" if is_fine else match["coarse"]
    question = match["question"].lower() if lower else match["question"]
    return TextRow(tuple(split_text(question, rule)), (label,))
