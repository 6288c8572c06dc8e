"""The text files of a bundle: labels and vocabularies, one entry a line, from index 0."""

from collections.abc import Iterable, Mapping, Sequence


def lines_of(texts: Iterable[str]) -> bytes:
    """A text file with one entry a line."""
    return "".join(f"{text}\n" for text in texts).encode()


def vocabulary_file(name: str) -> str:
    """Where the vocabulary of an input is kept."""
    return f"vocabulary.{name}.txt"


def name_label_files(labels: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], str]:
    """A file for each different list of labels, given those of each output: outputs often share one."""
    different = dict.fromkeys(tuple(each) for each in labels.values())
    return {
        each: "labels.txt" if number == 0 else f"labels.{number}.txt"
        for number, each in enumerate(different)
    }
