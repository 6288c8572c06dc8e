"""Data sets in the format of the Hugging Face hub, made here: nothing is downloaded."""

import io
import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Translation, Value
from PIL import Image

from weir.training.__main__ import main
from weir.training.data import load, load_pairs, load_text
from weir.training.data.hub import HubName, has_validation
from weir.training.errors import DataError, MissingExtra
from weir.training.images import experiment as image_experiment
from weir.training.images.recipes import ImageRecipe
from weir.training.recipes import make_recipe
from weir.training.run_directory import read_record
from weir.training.text import experiment
from weir.training.text.recipes import SequenceRecipe

CLASSES = ["spam", "ham"]
WANTED = (
    "expected a column of texts (string) and one of classes (ClassLabel), or a column of words "
    "(List(string)) and one of tags (List(ClassLabel))"
)
THERE = "there are id (string), text (string), label (ClassLabel)"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and a cache of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def texts(count: int, *, first: int = 0) -> Dataset:
    rows = range(first, first + count)
    return Dataset.from_dict(
        {
            "id": [f"row {row}" if row else "0" for row in rows],
            "text": [f"buy {row} now!" if row % 2 == 0 else f"see you {row}" for row in rows],
            "label": [row % 2 for row in rows],
        },
        features=Features(
            {"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=CLASSES)}
        ),
    )


def saved(data: Dataset | DatasetDict, folder: Path) -> str:
    data.save_to_disk(folder)
    return f"hf:{folder}"


@pytest.fixture
def text_set(tmp_path: Path) -> str:
    """Train, validation and test: 40, 6 and 8 rows."""
    splits = {
        "train": texts(40).remove_columns("id"),
        "validation": texts(6, first=40).remove_columns("id"),
        "test": texts(8, first=50).remove_columns("id"),
    }
    return saved(DatasetDict(splits), tmp_path / "mails")


def test_texts_and_classes_come_from_their_features_and_each_split_is_used(text_set: str) -> None:
    train, dev, test = (load_text(text_set, split) for split in ("train", "dev", "test"))

    assert [len(data.rows) for data in (train, dev, test)] == [40, 6, 8]
    assert train.rows[:2] == (("buy", "0", "now", "!"), ("see", "you", "1"))
    assert train.labels[:2] == (("spam",), ("ham",)) and not train.is_tagged
    assert has_validation(text_set)
    assert len({data.checksum for data in (train, dev, test)}) == 3


def test_a_missing_split_is_held_out_of_the_training_rows(tmp_path: Path) -> None:
    name = saved(texts(50).remove_columns("id"), tmp_path / "one")

    train, test = load_text(name, "train"), load_text(name, "test")

    assert (len(train.rows), len(test.rows)) == (40, 10)
    assert not {*train.rows} & {*test.rows} and train.checksum == test.checksum
    assert not has_validation(name)


def test_a_test_split_without_labels_counts_as_missing(tmp_path: Path) -> None:
    secret = texts(5, first=90).map(lambda row: {"label": -1})
    splits = DatasetDict({"train": texts(50), "test": secret}).remove_columns("id")
    name = saved(splits, tmp_path / "secret")

    test = load_text(name, "test")

    assert len(test.rows) == 10 and {*test.labels} == {("ham",), ("spam",)}


def test_the_checksum_is_of_the_rows_and_not_of_their_files(tmp_path: Path) -> None:
    data = texts(10).remove_columns("id")
    one, same = saved(data, tmp_path / "one"), tmp_path / "same"
    same.mkdir()
    data.to_parquet(same / "train.parquet")
    changed = data.map(
        lambda row, at: {"text": f"{row['text']}?" if at == 9 else row["text"]}, with_indices=True
    )

    first = load_text(one, "train").checksum

    assert load_text(f"hf:{same}", "train").checksum == first
    assert load_text(saved(changed, tmp_path / "changed"), "train").checksum != first


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_files_whose_columns_are_plain_are_read_by_their_names(tmp_path: Path, kind: str) -> None:
    rows = [{"body": "out of stock", "stars": 1}, {"body": "very good", "stars": 5}] * 10
    if kind == "csv":
        content = "body,stars\n" + "".join(f"{row['body']},{row['stars']}\n" for row in rows)
    else:
        content = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / f"train.{kind}").write_text(content)

    data = load_text(f"hf:{tmp_path / 'shop'}:body,stars", "train")

    assert data.classes == ("1", "5") and ("out", "of", "stock") in data.rows


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "",
            f"{WANTED}; {THERE}; name two of them as {{name}}:INPUT,TARGET",
        ),
        (":text,class", f"{WANTED}; {THERE}"),
        (":text", "expected hf:NAME:INPUT,TARGET, got 'text'"),
    ],
    ids=["ambiguous", "unknown", "one"],
)
def test_columns_that_leave_a_choice_are_a_line_that_says_what_to_type(
    tmp_path: Path, columns: str, message: str
) -> None:
    name = saved(texts(10), tmp_path / "two")

    with pytest.raises(DataError) as error:
        load_text(f"{name}{columns}", "train")

    assert message.format(name=name) in str(error.value) and "\n" not in str(error.value)


def test_columns_are_not_asked_for_where_none_would_do(tmp_path: Path) -> None:
    name = saved(texts(10), tmp_path / "texts")

    with pytest.raises(DataError) as error:
        load(name)

    assert "expected a column of pictures (Image)" in str(error.value)
    assert str(error.value).endswith(THERE)


def test_words_and_tags(tmp_path: Path) -> None:
    features = Features(
        {"tokens": List(Value("string")), "upos": List(ClassLabel(names=["NOUN", "VERB"]))}
    )
    words = [["dogs", "bark", str(row)] if row % 2 else ["cats"] for row in range(10)]
    rows = {"tokens": words, "upos": [[0, 1, 0] if len(each) > 1 else [0] for each in words]}
    data = Dataset.from_dict(rows, features=features)
    name = saved(DatasetDict({"train": data, "test": data.take(2)}), tmp_path / "treebank")

    train = load_text(name, "train")

    assert train.is_tagged
    assert train.rows[:2] == (("cats",), ("dogs", "bark", "1"))
    assert train.labels[:2] == (("NOUN",), ("NOUN", "VERB", "NOUN"))


def test_a_word_without_a_tag_is_named(tmp_path: Path) -> None:
    rows = {"tokens": [["dogs", "bark"]], "tags": [["NOUN"]]}
    name = saved(Dataset.from_dict(rows), tmp_path / "treebank")

    with pytest.raises(DataError, match=r"train, row 0: expected a tag for each word"):
        load_text(f"{name}:tokens,tags", "train")


def test_pairs_are_the_languages_of_a_translation_or_two_columns(tmp_path: Path) -> None:
    features = Features({"translation": Translation(languages=["de", "en"])})
    rows = [{"translation": {"de": f"Haus {n}", "en": f"house {n}"}} for n in range(10)]
    data = Dataset.from_list(rows, features=features)
    name = saved(DatasetDict({"train": data, "test": data.take(2)}), tmp_path / "pairs")
    plain = Dataset.from_dict({"word": ["a", "b"], "sound": ["AH", "B IY"]})

    there, back = load_pairs(f"{name}:de,en"), load_pairs(f"{name}:en,de", "test")
    words = load_pairs(f"{saved(plain, tmp_path / 'words')}:word,sound")

    assert (there.sources[0], there.references[0]) == ("Haus 0", ("house 0",))
    assert (len(there), len(back), back.sources[1]) == (10, 2, "house 1")
    assert len(words) == 1
    with pytest.raises(
        DataError, match=r"there are translation \(Translation of de, en\); name two"
    ):
        load_pairs(name)


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def picture_set(tmp_path: Path) -> str:
    """Dark and bright pictures; train has 30 rows and validation 4."""

    def rows(count: int) -> Dataset:
        levels = [200 * (row % 2) + row for row in range(count)]
        return Dataset.from_dict(
            {
                "image": [{"bytes": picture(level), "path": None} for level in levels],
                "label": [row % 2 for row in range(count)],
            },
            features=Features(
                {"image": datasets.Image(), "label": ClassLabel(names=["dark", "bright"])}
            ),
        )

    splits = DatasetDict({"train": rows(30), "validation": rows(4)})
    return saved(splits, tmp_path / "pictures")


def test_pictures_are_converted_as_those_of_a_folder(picture_set: str) -> None:
    train, test = load(picture_set, "train"), load(picture_set, "test")

    assert train.classes == ("dark", "bright")
    assert train.images.shape == (24, 28, 28, 1) and len(test) == 6
    assert train.checksum == test.checksum
    means = train.images.mean(axis=(1, 2, 3))
    assert (means[train.labels == 0] < 40).all() and (means[train.labels == 1] > 190).all()


def test_validation_pictures_of_the_data_set_choose_the_epoch(picture_set: str) -> None:
    recipe = make_recipe("lenet5", picture_set)
    assert isinstance(recipe, ImageRecipe)

    prepared = image_experiment.prepare(recipe)

    rows = (prepared.train, prepared.validation, prepared.held_out)
    assert [len(data) for data in rows] == [24, 4, 6]
    checksums = prepared.split_checksums
    assert checksums.train == checksums.test != checksums.validation


def test_a_folder_of_pictures_is_a_data_set(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(picture(20 * number))

    data = load(f"hf:{tmp_path / 'pets'}", height=8, width=8, channels=3)

    assert data.classes == ("cat", "dog") and data.images.shape == (8, 8, 8, 3)


def test_a_broken_picture_is_skipped_and_named(tmp_path: Path) -> None:
    files = [picture(row) for row in range(50)]
    files[7] = b"no picture"
    rows = {
        "image": [{"bytes": file, "path": None} for file in files],
        "label": [row % 2 for row in range(50)],
    }
    features = Features({"image": datasets.Image(), "label": ClassLabel(names=["a", "b"])})
    data = Dataset.from_dict(rows, features=features)
    name = saved(DatasetDict({"train": data, "test": data.take(6)}), tmp_path / "broken")

    train = load(name, "train")

    assert len(train) == 49 and len(train.labels) == 49
    assert [str(each) for each in train.skipped] == [f"{name}, train, row 7 (no picture)"]
    assert train.images[7].mean() == pytest.approx(8)


def test_too_many_broken_pictures_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        "image": [{"bytes": bytes([row]), "path": None} for row in range(40)],
        "label": [row % 2 for row in range(40)],
    }
    features = Features({"image": datasets.Image(), "label": ClassLabel(names=["a", "b"])})
    name = saved(Dataset.from_dict(rows, features=features), tmp_path / "broken")

    code = main(["lenet5", "--data", name, "--out", str(tmp_path / "run")])

    assert code == 2
    expected = f"weir: {name}: expected at most 5% of the pictures unreadable, got 40 of 40: "
    assert capsys.readouterr().err.startswith(expected)


def test_a_training_is_recorded_by_its_full_name_and_read_again(
    text_set: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    code = main(["question", "--data", "hf:mails", "--quick", "--epochs", "2"])

    assert code == 0, capsys.readouterr().err
    run = tmp_path / "runs" / "question-mails"
    record = read_record(run)
    rows = record.data
    assert record.data.name == f"hf:{tmp_path / 'mails'}" == text_set
    assert (rows.train_rows, rows.validation_rows, rows.test_rows) == (40, 6, 8)
    assert record.classes == ["ham", "spam"]
    assert len(experiment.load_test(run, record)) == 8


def test_rows_that_changed_since_the_training_are_refused(text_set: str, tmp_path: Path) -> None:
    recipe = make_recipe("question", text_set)
    assert isinstance(recipe, SequenceRecipe)
    before = experiment.read_texts(recipe).checksum
    folder = Path(text_set.removeprefix("hf:"))
    changed = DatasetDict.load_from_disk(folder)
    changed["test"] = changed["test"].map(lambda row: {"text": f"{row['text']} again"})
    changed.save_to_disk(tmp_path / "changed")

    after = make_recipe("question", f"hf:{tmp_path / 'changed'}")
    assert isinstance(after, SequenceRecipe)

    assert experiment.read_texts(after).checksum != before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:imdb", ("imdb", None, None)),
        ("hf:nyu-mll/glue/sst2", ("nyu-mll/glue", "sst2", None)),
        ("hf:wmt/wmt14/de-en:de,en", ("wmt/wmt14", "de-en", ("de", "en"))),
        ("hf:a/b: text , label ", ("a/b", None, ("text", "label"))),
    ],
)
def test_names_of_the_hub(
    text: str, expected: tuple[str, str | None, tuple[str, str] | None]
) -> None:
    name = HubName.parse(text)

    assert (name.source, name.config, name.columns) == expected and not name.is_folder
    assert HubName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["hf:", "hf:a/b/c/d", "hf:./nothing", "hf:/no/such", "hf:x:a,b,c"])
def test_a_malformed_name_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected"):
        HubName.parse(text)


def test_an_unreachable_hub_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main(["question", "--data", "hf:nobody/nothing", "--out", str(tmp_path / "run")])

    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    assert error.startswith("weir: hf:nobody/nothing: expected a data set of the hub or a folder")


def test_without_the_package_one_line_says_what_to_install(
    text_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)

    with pytest.raises(MissingExtra) as error:
        load_text(text_set)

    assert str(error.value) == (
        f"--data {text_set}: datasets is not installed: pip install 'weir[datasets]'"
    )
