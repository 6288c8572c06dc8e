"""Which fields a text in protobuf's text format has, declared or not, and which of them Weir heeds.

`text_format` passes over what is not declared without a word; an operator should read of it. It also calls
itself for each level of nesting: how deep a text is, is found here beforehand, without recursion.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from google.protobuf import text_format

# Real ones have 9 levels at most.
_MAX_DEPTH = 32
# The parser copies the line that it is in for every value: 1 MiB of values on one took it 110 s.
_MAX_LINE = 16_384
_MAX_NAME = 128
_MAX_NAMED = 32
_OPENING = frozenset("{<[")
_CLOSING = frozenset("}>]")
_TOKEN = re.compile(
    r"""
    \#[^\n]*                           # a comment
    | "(?:[^"\\\n]|\\.)*+"?  | '(?:[^'\\\n]|\\.)*+'?
    | \w[\w.+-]*+                      # a name, a number, a value of an enumeration
    | \S
    """,
    re.VERBOSE,
)

_USED = frozenset(
    (
        "name", "platform", "backend", "max_batch_size", "default_model_filename",
        "input.name", "input.data_type", "input.dims", "input.allow_ragged_batch",
        "output.name", "output.data_type", "output.dims", "output.label_filename",
        "dynamic_batching.max_queue_delay_microseconds",
        "instance_group.count", "instance_group.kind",
        "version_policy.latest.num_versions", "version_policy.all", "version_policy.specific.versions",
        "model_transaction_policy.decoupled",
    )
)  # fmt: skip
# Of these it is told which of their fields are not heeded, rather than that they are not.
_OPENED = frozenset(
    ("optimization", *(".".join(path.split(".")[:end]) for path in _USED for end in (1, 2)))
)
_MAX_PARTS = max(path.count(".") for path in _USED) + 1


@dataclass(frozen=True, slots=True)
class _Level:
    """A message, or a list of messages or values, that the text is inside of."""

    path: tuple[str, ...]
    is_list: bool


class _Token(NamedTuple):
    text: str
    end: int


def paths(text: str) -> Iterator[str]:
    """The dotted path of every field, as often as it is there, `input`, `input.name`, as deep as any is heeded.

    Of a text with unmatched brackets, any: what is wrong with it, the parser says.

    Raises:
        text_format.ParseError: there are more levels, or longer lines, than any configuration has.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _MAX_LINE:
            raise text_format.ParseError(f"Expected at most {_MAX_LINE} characters.", number, 1)
    levels = [_Level((), is_list=False)]
    path: tuple[str, ...] = ()
    for (word, end), (following, _) in pairwise(_tokens(text)):
        level = levels[-1]
        if word in _OPENING:
            # A list's messages bear the list's name.
            levels.append(_Level(level.path if level.is_list else path, is_list=word == "["))
            if len(levels) > _MAX_DEPTH + 1:
                number = text.count("\n", 0, end) + 1
                raise text_format.ParseError(f"Expected at most {_MAX_DEPTH} levels.", number, 1)
        elif word in _CLOSING and len(levels) > 1:
            levels.pop()
        elif _is_name(word) and (following == ":" or following in _OPENING):
            path = (*level.path, word[:_MAX_NAME])[: _MAX_PARTS + 1]
            if len(path) <= _MAX_PARTS:
                yield ".".join(path)


def with_colons(text: str) -> str:
    """The same text, with the colon that may be left out before a list of messages.

    Where a field is not declared, `text_format` does not know that it may.
    """
    ends = [
        end
        for (token, end), (following, _) in pairwise(_tokens(text))
        if _is_name(token) and following == "["
    ]
    return ":".join(text[start:end] for start, end in pairwise([0, *ends, len(text)]))


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        if not match[0].startswith("#"):
            yield _Token(match[0], match.end())
    yield _Token("", len(text))


def unused(found: Collection[str]) -> tuple[str, ...]:
    """The fields that are not heeded, each once, as far as its path has to be told for that."""
    strays: dict[str, None] = {}
    for path in found:
        parts = path.split(".")
        prefixes = (".".join(parts[: end + 1]) for end in range(len(parts)))
        stray = next((one for one in prefixes if one not in _USED | _OPENED), None)
        if stray is not None:
            strays[stray] = None
    named = tuple(strays)
    more = len(named) - _MAX_NAMED
    return (*named[:_MAX_NAMED], f"and {more} more") if more > 0 else named


def _is_name(token: str) -> bool:
    # Numbers are names too: `text_format` takes them for fields that it passes over.
    return token[0].isalnum() or token[0] == "_"
