"""Sequences as numbers in memory, end to end, and the padded batches that are taken from them.

Rows are of unequal length, so a split is one long strip of steps and the length of each row. A word is kept
as the index of its form, the way it is written, because ids and letters are the same wherever it occurs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weir.training.data.text import TextData
from weir.training.data.vocabulary import PAD, UNKNOWN, Vocabulary
from weir.training.loop import Batch
from weir.training.optimization import NO_TARGET, UNSEEN
from weir.training.text.recipe import TokenSettings


@dataclass(frozen=True, slots=True)
class Forms:
    """Every different way a word is written, the first one being padding.

    ids: (forms,) int64, of the words' vocabulary.
    letters: (forms, L) int64, of the letters' vocabulary, 0 beyond a word's end; none where they are not read.
    """

    ids: Tensor
    letters: Tensor | None


@dataclass(frozen=True, slots=True)
class Strip:
    """One split.

    steps: (steps,) int64, indices into `forms`; or (steps, features) uint8, frames.
    lengths: (rows,) int64.
    targets: (rows,) int64, or (steps,) where every step has one, `is_tagged`.
    forms: none where the steps are frames.
    """

    steps: Tensor
    lengths: Tensor
    targets: Tensor
    is_tagged: bool
    forms: Forms | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> "Strip":
        """The same on a device; lengths stay, as packing wants them on the CPU."""
        forms = self.forms
        if forms is not None:
            letters = forms.letters.to(device) if forms.letters is not None else None
            forms = Forms(forms.ids.to(device), letters)
        return replace(
            self, steps=self.steps.to(device), targets=self.targets.to(device), forms=forms
        )


def take(strip: Strip, starts: Tensor, rows: Tensor, hidden: Tensor | None = None) -> Batch:
    """Rows as one padded batch.

    Args:
        strip: to take from.
        starts: (rows of the strip,) where each row's steps begin.
        rows: (B,) indices, on the CPU.
        hidden: (longest of these rows,) or (B, T) bool: words to be shown as unknown; none hides none.

    Returns:
        inputs: tokens (B, T) and lengths (B,), and letters (B, T, L) where they are read; or frames
        (B, T, features) and lengths. Targets (B,) or (B, T).
    """
    lengths = strip.lengths[rows]
    places = torch.arange(int(lengths.max()))[None]  # (1, T)
    is_real = places < lengths[:, None]  # (B, T)
    at = torch.where(is_real, starts[rows][:, None] + places, 0).to(strip.steps.device)
    is_real = is_real.to(strip.steps.device)
    if strip.is_tagged:
        targets = torch.where(is_real, strip.targets[at], NO_TARGET)  # (B, T)
    else:
        targets = strip.targets[rows.to(strip.targets.device)]  # (B,)
    if strip.forms is None:
        frames = strip.steps[at] * is_real[:, :, None]  # (B, T, features)
        return Batch((frames, lengths), targets)
    forms = torch.where(is_real, strip.steps[at], 0)  # (B, T)
    tokens = strip.forms.ids[forms]  # (B, T)
    if hidden is not None:
        tokens = torch.where(hidden.to(tokens.device) & is_real, UNKNOWN, tokens)
    if strip.forms.letters is None:
        return Batch((tokens, lengths), targets)
    letters = strip.forms.letters[forms]  # (B, T, most letters)
    longest = max(int((letters != PAD).sum(dim=2).max()), 1)
    return Batch((tokens, lengths, letters[:, :, :longest]), targets)


def starts_of(strip: Strip) -> Tensor:
    """Where each row's steps begin: (rows,)."""
    return torch.cumsum(strip.lengths, 0) - strip.lengths


def build_vocabularies(
    rows: Iterable[Sequence[str]], settings: TokenSettings
) -> dict[str, Vocabulary]:
    """By input: of the words, and of the letters where they are read; of the training rows only."""
    rows = list(rows)
    shown = ([_shown(token, settings) for token in row] for row in rows)
    found = {"tokens": Vocabulary.build(shown, minimum_count=settings.minimum_count)}
    if settings.spelling:
        found["characters"] = Vocabulary.build(token for row in rows for token in row)
    return found


def to_strip(
    data: TextData,
    classes: Sequence[str],
    vocabularies: Mapping[str, Vocabulary],
    settings: TokenSettings,
) -> Strip:
    """A split of texts as numbers; a label that is no class becomes `UNSEEN`."""
    forms: dict[str, int] = {}
    steps = [forms.setdefault(token, len(forms) + 1) for row in data.rows for token in row]
    ids = vocabularies["tokens"].encode([_shown(token, settings) for token in forms])
    numbers = {label: number for number, label in enumerate(classes)}
    labels = [numbers.get(label, UNSEEN) for row in data.labels for label in row]
    return Strip(
        steps=torch.tensor(steps),
        lengths=torch.tensor([len(row) for row in data.rows]),
        targets=torch.tensor(labels),
        is_tagged=data.is_tagged,
        forms=Forms(
            torch.tensor([PAD, *ids]), _spell(list(forms), vocabularies.get("characters"), settings)
        ),
    )


def _spell(forms: list[str], letters: Vocabulary | None, settings: TokenSettings) -> Tensor | None:
    """The ids of each word's letters, of its beginning where it has too many; first of no word."""
    if letters is None:
        return None
    spelt = [[], *(letters.encode(form[: settings.most_letters]) for form in forms)]
    longest = max(map(len, spelt))
    return torch.tensor([[*ids, *[PAD] * (longest - len(ids))] for ids in spelt])


def _shown(token: str, settings: TokenSettings) -> str:
    """A word as its vocabulary knows it."""
    return token.lower() if settings.lower else token
