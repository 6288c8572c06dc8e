"""A small BERT, and a WordPiece tokenizer.json that is trained on the spot."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

TEXTS = [
    "What is the name of the dog ?",
    "How many people live in Rome and how many live in the mountains of Peru ?",
    "Who wrote it ?",
    "Where is the longest river of the world, and how long does a boat take from end to end ?",
    "Zürich",
    "Why ?",
    "When did the first train leave the station of Nuremberg for Fürth ?",
]
LABELS = ["thing", "number", "person"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAXIMUM = 64


def trained_tokenizer() -> Tokenizer:
    """BERT's tokenizer, with a vocabulary of these texts but one; the same each time."""
    return Tokenizer.from_str(_trained())


@cache
def _trained() -> str:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learned = [text for text in TEXTS if text != "Zürich"] * 20
    tokenizer.train_from_iterator(
        learned,
        trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False),
    )
    # The trainer numbers equally frequent entries in any order.
    entries = [*SPECIAL, *sorted(tokenizer.get_vocab().keys() - {*SPECIAL})]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")  # noqa: S106 - no password
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer.to_str()


def write_tokenizer(path: Path) -> Tokenizer:
    """Write the tokenizer.json; the tokenizer itself is the oracle of its ids."""
    tokenizer = trained_tokenizer()
    path.write_text(tokenizer.to_str(), "utf-8")
    return tokenizer


class Bert(nn.Module):
    """A classifier of the first token, [CLS] (Devlin et al., 2019), with random weights."""

    def __init__(self, entries: int, width: int = 32) -> None:
        super().__init__()
        self.tokens = nn.Embedding(entries, width)
        self.positions = nn.Embedding(MAXIMUM, width)
        self.types = nn.Embedding(2, width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, len(LABELS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Logits (B, classes) of ids, mask and types (B, T)."""
        places = torch.arange(input_ids.shape[1])
        states = self.tokens(input_ids) + self.types(token_type_ids) + self.positions(places)
        query, key, value = self.query_key_value(states).chunk(3, dim=-1)  # (B, T, W) each
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5  # (B, T, T)
        scores = scores.masked_fill(attention_mask[:, None] == 0, -1e9)
        states = self.norm(states + torch.softmax(scores, dim=-1) @ value)
        states = states + self.feed_forward(states)
        logits: Tensor = self.classes(states[:, 0])
        return logits


def random_bert(tokenizer: Tokenizer) -> Bert:
    """The classifier, with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Bert(tokenizer.get_vocab_size()).eval()


def alone(network: nn.Module, tokenizer: Tokenizer, text: str) -> list[float]:
    """The class probabilities of one text by tokenizer and network themselves."""
    encoding = tokenizer.encode(text)
    with torch.inference_mode():
        logits = network(
            input_ids=torch.tensor([encoding.ids]),
            attention_mask=torch.tensor([encoding.attention_mask]),
            token_type_ids=torch.tensor([encoding.type_ids]),
        )
    logits = logits if isinstance(logits, Tensor) else logits.logits
    probabilities: list[float] = torch.softmax(logits[0].double(), dim=-1).tolist()
    return probabilities
