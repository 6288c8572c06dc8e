"""Tiny files of texts in the formats that users bring: easy to learn, of rows of 1 to 9 tokens."""

import random
from pathlib import Path

TAGS = {"The": "DET", "a": "DET", "cat": "NOUN", "dog": "NOUN", "runs": "VERB", "sees": "VERB"}


def sentences(rows: int, seed: int = 0) -> list[list[str]]:
    """Words of `TAGS`, at random."""
    chance = random.Random(seed)
    return [chance.choices(list(TAGS), k=chance.randint(1, 9)) for _ in range(rows)]


def write_labelled(path: Path, rows: int = 60, seed: int = 0) -> Path:
    """`label<TAB>text`: whether the animal of the first word is a cat."""
    texts = [
        ["dog", "cat"][row % 2 :][:1] + words for row, words in enumerate(sentences(rows, seed))
    ]
    path.write_text("".join(f"{words[0]}s\t{' '.join(words)}\n" for words in texts), "utf-8")
    return path


def write_tagged(path: Path, rows: int = 60, seed: int = 0) -> Path:
    """`token/TAG token/TAG …`."""
    lines = (" ".join(f"{word}/{TAGS[word]}" for word in words) for words in sentences(rows, seed))
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def write_conllu(path: Path, rows: int = 60, seed: int = 0) -> Path:
    """CoNLL-U; the XPOS is the UPOS in small letters, and nouns have a number."""
    written = []
    for words in sentences(rows, seed):
        for number, word in enumerate(words, 1):
            tag = TAGS[word]
            feats = "Number=Sing" if tag == "NOUN" else "_"
            columns = (str(number), word, word, tag, tag.lower(), feats, "0", "root", "_", "_")
            written.append("\t".join(columns) + "\n")
        written.append("\n")
    path.write_text("".join(written), "utf-8")
    return path
