"""A BERT classifier of the library `transformers` answers texts, batched by length."""

import asyncio
import subprocess
import sys
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


TEXTS = [" ".join(["live"] * (1 + count % 20)) for count in range(60)]


def check_answers(models: Path, network: torch.nn.Module, oracle: Tokenizer) -> None:
    """Serve the model `bert`, and compare its answers to texts that share batches."""
    log = models.parent / "server.log"
    with running(models, log, "--max-queue-delay-s", "0.05") as server:

        async def main() -> list[list[weir.ClassifiedText]]:
            async with weir.AsyncClient(server.target, timeout_s=ANSWER_S) as client:
                return await asyncio.gather(*(client.classify_text("bert", [t]) for t in TEXTS))

        answers = asyncio.run(main())
        server.settle()
        counts = server.counts("bert")

    for text, (answer,) in zip(TEXTS, answers, strict=True):
        scores = {each.label: each.score for each in answer.classes}
        expected = bert.alone(network, oracle, text)
        assert [scores[label] for label in bert.LABELS] == pytest.approx(expected, abs=1e-5)
    assert counts["rows"] == len(TEXTS) and counts["batches"] < len(TEXTS)


def test_bert_answers_texts_of_unequal_length_in_shared_batches(
    folder: Path, network: torch.nn.Module, tmp_path: Path
) -> None:
    file = TokenizerFile.read(folder / "tokenizer.json", maximum=bert.MAXIMUM)
    spec = ExportSpec.for_texts(
        file, architecture="bert", outputs=("logits",), labels={"logits": bert.LABELS}
    )
    publish(network, file.encode(bert.TEXTS), spec, to=tmp_path / "models", name="bert")
    check_answers(tmp_path / "models", network, Tokenizer.from_file(str(folder / "tokenizer.json")))


def test_file_of_torch_is_imported_with_the_tokenizer_json(
    folder: Path, network: torch.nn.Module, tmp_path: Path
) -> None:
    file = TokenizerFile.read(folder / "tokenizer.json")
    example = {name: torch.from_numpy(rows) for name, rows in file.encode(bert.TEXTS).items()}
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        network,
        kwargs=example,
        f=tmp_path / "bert.onnx",
        dynamic_shapes=dict.fromkeys(example, axes),
        verbose=False,
    )
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in bert.LABELS))

    typed = ["bert.onnx", "--tokenizer", str(folder / "tokenizer.json")]
    typed += ["--labels", "labels.txt", "--to", "models"]
    subprocess.run([sys.executable, "-m", "weir", "import", *typed], check=True, cwd=tmp_path)

    check_answers(tmp_path / "models", network, Tokenizer.from_file(str(folder / "tokenizer.json")))
