"""A BERT classifier of the library `transformers` answers texts, batched by length."""

import asyncio
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import weir
from tests.helpers import bert
from tests.integration.harness import ANSWER_S, running
from weir.export import ExportSpec, TokenizerFile, publish

pytestmark = [
    pytest.mark.exporters,
    # What an exporter warns of is between its library and Python.
    pytest.mark.filterwarnings("default"),
]
transformers = pytest.importorskip("transformers", reason="installed by make test-exporters")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tokenizer.json that `transformers` saves."""
    place = tmp_path_factory.mktemp("bert")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bert.trained_tokenizer(),
        unk_token="[UNK]",  # noqa: S106 - no password
        pad_token="[PAD]",  # noqa: S106 - no password
        cls_token="[CLS]",  # noqa: S106 - no password
        sep_token="[SEP]",  # noqa: S106 - no password
        mask_token="[MASK]",  # noqa: S106 - no password
    )
    fast.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier: torch.nn.Module = transformers.BertForSequenceClassification(
            transformers.BertConfig(
                vocab_size=bert.trained_tokenizer().get_vocab_size(),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=bert.MAXIMUM,
                num_labels=len(bert.LABELS),
            )
        )
        return classifier.eval()


def test_bert_answers_texts_of_unequal_length_in_shared_batches(
    folder: Path, network: torch.nn.Module, tmp_path: Path
) -> None:
    file = TokenizerFile.read(folder / "tokenizer.json", maximum=bert.MAXIMUM)
    spec = ExportSpec.for_texts(
        file, architecture="bert", outputs=("logits",), labels={"logits": bert.LABELS}
    )
    publish(network, file.encode(bert.TEXTS), spec, to=tmp_path / "models", name="bert")
    oracle = Tokenizer.from_file(str(folder / "tokenizer.json"))

    texts = [" ".join(["live"] * (1 + count % 20)) for count in range(60)]
    with running(
        tmp_path / "models", tmp_path / "server.log", "--max-queue-delay-s", "0.05"
    ) as server:

        async def main() -> list[list[weir.ClassifiedText]]:
            async with weir.AsyncClient(server.target, timeout_s=ANSWER_S) as client:
                return await asyncio.gather(*(client.classify_text("bert", [t]) for t in texts))

        answers = asyncio.run(main())
        server.settle()
        counts = server.counts("bert")

    for text, (answer,) in zip(texts, answers, strict=True):
        scores = {each.index: each.score for each in answer.classes}
        expected = bert.alone(network, oracle, text)
        assert [scores[index] for index in sorted(scores)] == pytest.approx(expected, abs=1e-5)
    assert counts["rows"] == 60 and counts["batches"] < 60
