"""Letters as tokens, from a file of names to the answers of `weir classify-text`."""

import json
from pathlib import Path

import pytest
import torch

from tests.integration.harness import running
from weir.bundle.reader import read
from weir.cli import main as cli
from weir.export.runs.publishing import publish_run
from weir.server.preprocessing.tokenizer import Tokenizer, tokenizer_of
from weir.training.__main__ import main as train
from weir.training.batching import PackedRows
from weir.training.run_directory import part_of, read_record
from weir.training.text.experiment import load_model, load_test, load_vocabularies
from weir.training.text.recipes import SequenceRecipe

NAMES = {
    "pl": ["Łukasz", "łukasz", "Święta", "Żółć", "Łódź", "Śląsk", "Źdźbło", "Żaba", "Łza", "Świt"],
    "tr": ["İpek", "ipek", "Ilgaz", "Çağ", "Gül", "Şule", "Ömür", "Ata", "İnci", "Uğur"],
    "ie": [
        "O'Neil",
        "o'neil",
        "Mc Coy",
        "O'Shea",
        "Mac Cool",
        "O'Dea",
        "Mc Ivor",
        "O'Hara",
        "Ó Sé",
    ],
    "fr": ["Re\u0301my", "Zoe\u0308", "Anaïs", "Noe\u0308l", "Jean Luc", "Andre\u0301", "Gaël"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("letters")
    data = folder / "names.tsv"
    data.write_text("".join(f"{label}\t{name}\n" for label in NAMES for name in NAMES[label]))
    order = ["question", "--quick", "--data", str(data), "--tokens", "letters", "--epochs", "12"]
    weights = ["--class-weights", "0.5", "--hidden", "24", "--batch-size", "4"]
    assert train([*order, *weights, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_served_letters_are_those_of_training(run: Path, tmp_path: Path) -> None:
    bundle = read(publish_run(run, to=tmp_path / "models").path)
    tokenizer = tokenizer_of(bundle)
    assert isinstance(tokenizer, Tokenizer) and bundle.contract.tokenisation is not None
    texts = [name for names in NAMES.values() for name in names]

    served = [tokenizer.tokenize(f" {text.replace(' ', '  ')} ").ids for text in texts]

    vocabulary = load_vocabularies(run)["tokens"]
    recipe = part_of(read_record(run), SequenceRecipe)
    assert recipe.tokens is not None and not recipe.tokens.lower
    assert (bundle.contract.tokenisation.rule, bundle.contract.tokenisation.lower) == (
        "letters",
        False,
    )
    # A letter and its accent are one token, and so is the space between two words.
    assert tokenizer.tokenize("Re\u0301my").tokens == ["R", "é", "m", "y"]
    assert tokenizer.tokenize("Mc  Coy").tokens == list("Mc Coy")
    assert served == [vocabulary.encode(tokenizer.tokenize(text).tokens) for text in texts]
    packed = load_test(run, read_record(run))
    assert packed.forms is not None
    trained = [
        packed.forms.ids[row].tolist()
        for row in torch.split(packed.rows.steps, packed.lengths.tolist())
    ]
    assert all(row in served for row in trained)


def test_served_names_are_classified_as_training_does(
    run: Path, transport: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = publish_run(run, to=tmp_path / "models", name="names").path
    texts = [name for names in NAMES.values() for name in names]
    vocabulary, record = load_vocabularies(run)["tokens"], read_record(run)
    network = load_model(run)
    with torch.inference_mode():
        packed = PackedRows.of_ids([vocabulary.encode(_letters(text)) for text in texts])
        every = torch.arange(len(texts))
        logits = network(packed.take(every, 0), packed.lengths)
    expected = [record.classes[each] for each in logits.argmax(dim=1).tolist()]

    with running(tmp_path / "models", tmp_path / "log", "--transport", transport) as server:
        capsys.readouterr()
        order = ["classify-text", *texts, "--model", "names", "--target", server.target, "--json"]
        with pytest.raises(SystemExit) as ended:
            cli.main(order)
        answers = json.loads(capsys.readouterr().out)
        order = ["evaluate", "names", "--data", record.data.name, "--bundle", str(bundle)]
        with pytest.raises(SystemExit) as evaluated:
            cli.main([*order, "--target", server.target])

    # The exit code tells whether the accuracy is that of the test in training.
    assert not ended.value.code and not evaluated.value.code
    assert [answer["classes"][0]["label"] for answer in answers] == expected


def _letters(text: str) -> list[str]:
    composed = {"e\u0301": "é", "e\u0308": "ë"}
    for parts, whole in composed.items():
        text = text.replace(parts, whole)
    return list(text)
