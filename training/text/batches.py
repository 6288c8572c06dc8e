"""Batches of texts and frames: packed splits, the padded batches taken from them, and the task.

A word is stored as the index of its written form, because its id and its letters are the same
wherever it occurs.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weir.training.batching import PackedRows, group_by_length, shortest_first
from weir.training.data.text import TextData
from weir.training.data.vocabulary import PAD, UNKNOWN, Vocabulary
from weir.training.loop import Batch, Task
from weir.training.optimization import NO_TARGET, UNSEEN, choose_loss, weigh_classes
from weir.training.reproducibility import Purpose, generator_for
from weir.training.text.recipes import SequenceRecipe, TokenSettings


@dataclass(frozen=True, slots=True)
class Forms:
    """Every written form of a word; the first form is padding.

    ids: (forms,) int64, in the vocabulary of words.
    letters: (forms, L) int64, in the vocabulary of letters, 0 beyond a word's end; None if the
        network reads no letters.
    """

    ids: Tensor
    letters: Tensor | None


@dataclass(frozen=True, slots=True)
class Sequences:
    """One split of sequences with their targets.

    rows: steps (steps,) int64, indices into `forms`; or (steps, features) uint8, frames.
    targets: (rows,) int64; if `is_tagged`, (steps,).
    forms: None if the steps are frames.
    """

    rows: PackedRows
    targets: Tensor
    is_tagged: bool
    forms: Forms | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Tensor:
        """(rows,) int64, on the CPU."""
        return self.rows.lengths

    def to(self, device: torch.device) -> "Sequences":
        """The same split on a device; lengths stay on the CPU."""
        forms = self.forms
        if forms is not None:
            letters = forms.letters.to(device) if forms.letters is not None else None
            forms = Forms(forms.ids.to(device), letters)
        return replace(
            self, rows=self.rows.to(device), targets=self.targets.to(device), forms=forms
        )

    def take(self, rows: Tensor, hidden: Tensor | None = None) -> Batch:
        """Rows as one padded batch.

        Args:
            rows: (B,) indices, on the CPU.
            hidden: (T,) or (B, T) bool, words that are replaced by UNKNOWN; None hides none.

        Returns:
            Inputs: tokens (B, T) and lengths (B,), and letters (B, T, L) if the network reads
            them; or frames (B, T, features) and lengths. Targets (B,) or (B, T).
        """
        lengths, (at, is_real) = self.lengths[rows], self.rows.index(rows)
        if self.is_tagged:
            targets = torch.where(is_real, self.targets[at], NO_TARGET)  # (B, T)
        else:
            targets = self.targets[rows.to(self.targets.device)]  # (B,)
        if self.forms is None:
            frames = self.rows.steps[at] * is_real[:, :, None]  # (B, T, features)
            return Batch((frames, lengths), targets)
        forms = torch.where(is_real, self.rows.steps[at], 0)  # (B, T)
        tokens = self.forms.ids[forms]  # (B, T)
        if hidden is not None:
            tokens = torch.where(hidden.to(tokens.device) & is_real, UNKNOWN, tokens)
        if self.forms.letters is None:
            return Batch((tokens, lengths), targets)
        letters = self.forms.letters[forms]  # (B, T, most letters)
        longest = max(int((letters != PAD).sum(dim=2).max()), 1)
        return Batch((tokens, lengths, letters[:, :, :longest]), targets)


def build_vocabularies(
    rows: Iterable[Sequence[str]], settings: TokenSettings
) -> dict[str, Vocabulary]:
    """Build the vocabulary of each input from the training rows: words, and letters if read."""
    rows = list(rows)
    words = ([_entry(token, settings) for token in row] for row in rows)
    built = {"tokens": Vocabulary.build(words, minimum_count=settings.minimum_count)}
    if settings.spelling:
        built["characters"] = Vocabulary.build(
            (token for row in rows for token in row), minimum_count=settings.letter_minimum_count
        )
    return built


def pack(
    data: TextData,
    classes: Sequence[str],
    vocabularies: Mapping[str, Vocabulary],
    settings: TokenSettings,
) -> Sequences:
    """Pack a split of texts; a label that is not in `classes` becomes `UNSEEN`."""
    forms: dict[str, int] = {}
    steps = [forms.setdefault(token, len(forms) + 1) for row in data.rows for token in row]
    ids = vocabularies["tokens"].encode([_entry(token, settings) for token in forms])
    numbers = {label: number for number, label in enumerate(classes)}
    labels = [numbers.get(label, UNSEEN) for row in data.labels for label in row]
    return Sequences(
        rows=PackedRows.of(torch.tensor(steps), torch.tensor([len(row) for row in data.rows])),
        targets=torch.tensor(labels),
        is_tagged=data.is_tagged,
        forms=Forms(
            torch.tensor([PAD, *ids]),
            _letters(list(forms), vocabularies.get("characters"), settings),
        ),
    )


def _letters(
    forms: list[str], vocabulary: Vocabulary | None, settings: TokenSettings
) -> Tensor | None:
    """Letter ids (forms + 1, L), the first row padding; words that are too long are truncated."""
    if vocabulary is None:
        return None
    ids = [[], *(vocabulary.encode(form[: settings.most_letters]) for form in forms)]
    longest = max(map(len, ids))
    return torch.tensor([[*each, *[PAD] * (longest - len(each))] for each in ids])


def _entry(token: str, settings: TokenSettings) -> str:
    """The spelling under which a word is looked up in the vocabulary."""
    return token.lower() if settings.lower else token


def make_task(
    train: Sequences, validation: Sequences, recipe: SequenceRecipe, classes: int, *, mixed: bool
) -> Task:
    """The recipe's training task on these sequences."""
    weights = weigh_classes(recipe.class_weights, train.targets, classes)
    shares = hidden_shares(train, recipe.tokens) if recipe.tokens else None
    letter_share = recipe.tokens.unknown_letter_share if recipe.tokens else 0.0

    def training(epoch: int, first_step: int) -> Iterator[Batch]:
        generator = generator_for(recipe.seed, Purpose.ORDER, epoch)
        batches = group_by_length(train.lengths, recipe.batch_size, generator)
        for step, rows in enumerate(batches[first_step:], start=first_step):
            hidden = None
            drawn = generator_for(recipe.seed, Purpose.DISTORTION, epoch, step)
            if shares is not None:
                share = shares[train.rows.index(rows)[0].cpu()]  # (B, T)
                hidden = torch.rand(share.shape, generator=drawn) < share
            batch = train.take(rows, hidden)
            yield hide_letters(batch, letter_share, drawn) if letter_share else batch

    return Task(
        steps=math.ceil(len(train) / recipe.batch_size),
        training=training,
        validation=lambda: in_order(validation),
        loss=choose_loss(recipe, weights),
        chooses_by_f1=weights is not None,
        mixed=mixed,
        rows_are="sentences" if recipe.tokens else "sequences",
        targets_are="tokens" if recipe.task == "tagging" else None,
    )


def hidden_shares(train: Sequences, tokens: TokenSettings) -> Tensor | None:
    """How often training replaces the word of each step by UNKNOWN, (steps,); None: never.

    The rarer a word, the more often, so that the network reads the letters of rare words too: E.
    Kiperwasser, Y. Goldberg, "Simple and Accurate Dependency Parsing Using Bidirectional LSTM
    Feature Representations", TACL 4, 2016. Deviation: frequent words have a least share.
    """
    alpha, least = tokens.word_dropout_alpha, tokens.unknown_share
    if train.forms is None or not (alpha or least):
        return None
    ids = train.forms.ids[train.rows.steps].cpu()  # (steps,)
    counts = ids.bincount()[ids]
    return (alpha / (alpha + counts)).clamp(min=least)


def hide_letters(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    """Replace a share of the letters of a batch of words by UNKNOWN, so that it has a meaning.

    Letters of the training data are rarely unknown, those of other texts may be.
    """
    tokens, lengths, letters = batch.inputs  # (B, T), (B,), (B, T, L)
    is_hidden = torch.rand(letters.shape, generator=generator) < share
    hidden = torch.where(is_hidden.to(letters.device) & (letters != PAD), UNKNOWN, letters)
    return replace(batch, inputs=(tokens, lengths, hidden))


def in_order(sequences: Sequences) -> Iterator[Batch]:
    """Each row once, the shortest first."""
    for rows in shortest_first(sequences.lengths):
        yield sequences.take(rows)
