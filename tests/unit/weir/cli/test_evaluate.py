from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu import corpus_bleu

from tests.helpers import onnx_models, pairs
from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer
from weir.bundle import writer
from weir.bundle.contract import (
    Contract,
    PredictionInterval,
    Preprocessing,
    Provenance,
    Series,
    Tolerance,
)
from weir.bundle.sequences import Tokenisation
from weir.training.data import load, load_pairs
from weir.training.data.download import checksum
from weir.training.data.pairs import load_pair_file
from weir.training.seq2seq.evaluation import token_error_rate


@pytest.fixture(scope="module")
def share_of_threes() -> float:
    return float(np.mean(load("digits", "test").labels == 3))


@pytest.mark.parametrize("rows", [32, 7, 1000])
def test_the_accuracy_is_that_of_the_served_model(
    weir: Weir, fake: FakeServer, share_of_threes: float, rows: int
) -> None:
    done = weir("evaluate", "threes", "--data", "digits", "--rows", rows, "--target", fake.target)

    assert done.code == 0 and f"accuracy {share_of_threes:.4f}" in done.out


def test_the_expected_accuracy_is_confirmed(
    weir: Weir, fake: FakeServer, share_of_threes: float
) -> None:
    expect = ["--expect", share_of_threes, "--target", fake.target]

    done = weir("evaluate", "threes", "--data", "digits", *expect)

    assert done.code == 0 and "as expected" in done.out


def test_another_accuracy_is_a_failure(weir: Weir, fake: FakeServer) -> None:
    done = weir("evaluate", "threes", "--data", "digits", "--expect", 0.9, "--target", fake.target)

    assert done.code == 1 and "weir: expected accuracy 0.9000, got" in done.err


def bundle_of(root: Path, **fields: Any) -> Path:
    contract = Contract(
        task="forecasting" if "series" in fields else "image-classification",
        architecture="threes",
        tolerance=Tolerance(absolute=0.0, relative=0.0),
        **fields,
    )
    return writer.write({"model.onnx": onnx_models.affine()}, contract, root, "threes", None)


def trained(checksum: str = "c", **metrics: float) -> Provenance:
    return Provenance(recipe="r", data="digits", data_checksum=checksum, seed=0, metrics=metrics)


def test_the_bundle_says_what_to_expect(
    weir: Weir, fake: FakeServer, share_of_threes: float, tmp_path: Path
) -> None:
    digest = load("digits", "test").checksum
    right = bundle_of(tmp_path / "right", training=trained(digest, test_accuracy=share_of_threes))
    wrong = bundle_of(tmp_path / "wrong", training=trained(digest, test_accuracy=0.9))
    silent = bundle_of(tmp_path / "silent", training=trained(digest))
    imported = bundle_of(tmp_path / "imported")
    done = {
        bundle: weir(
            "evaluate", "threes", "--data", "digits", "--bundle", bundle, "--target", fake.target
        )
        for bundle in (right, wrong, silent, imported)
    }

    assert done[right].code == 0 and "as expected" in done[right].out
    assert done[wrong].code == 1 and "expected accuracy 0.9000" in done[wrong].err
    assert done[silent].code == 2 and "records no test_accuracy" in done[silent].err
    assert done[imported].code == 0 and "expected" not in done[imported].out


def test_pictures_are_prepared_as_the_bundle_says(
    weir: Weir, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def spy(name: str, split: str, **options: Any) -> Any:
        seen.append(options)
        return load("digits", "test")

    monkeypatch.setattr("weir.training.data.load", spy)
    pictures = Preprocessing(
        input="x", height=28, width=28, channels=1, resize="short-side", short_side=32, output="y"
    )
    bundle = bundle_of(tmp_path, preprocessing=pictures)

    done = weir("evaluate", "threes", "--data", "mine", "--bundle", bundle, "--target", fake.target)

    assert done.code == 0, done.err
    assert seen == [{"height": 28, "width": 28, "channels": 1, "short_side": 32}]


@pytest.mark.parametrize(("model", "data"), [("echo", "digits"), ("threes", "no/such/folder")])
def test_a_model_or_data_that_does_not_fit_is_refused(
    weir: Weir, fake: FakeServer, model: str, data: str
) -> None:
    done = weir("evaluate", model, "--data", data, "--target", fake.target)

    assert done.code == 2 and len(done.err.strip().splitlines()) == 1


def test_a_column_goes_with_data_that_have_columns(weir: Weir, fake: FakeServer) -> None:
    order = ["evaluate", "threes", "--data", "digits", "--target", fake.target]

    done = weir(*order, "--column", "xpos")

    assert done.code == 2 and "--column goes with CoNLL-U (ewt, or files" in done.err


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """A hundred values, of which the last twenty are tested on and the first seventy trained on."""
    values = np.random.default_rng(0).normal(10, 2, 100)
    path = tmp_path / "sales.csv"
    path.write_text("sales\n" + "".join(f"{value:.3f}\n" for value in values))
    return path


AS_EXPECTED = "as expected: training measured the same on these rows"


def scores_of(printed: str) -> dict[str, float]:
    """The scores by their names, without what they mean and the last words."""
    lines = [line.split() for line in printed.splitlines() if not line.startswith(AS_EXPECTED)]
    return {name: float(score) for name, score, *_ in lines}


SALES = Series(target="sales", lags=3, horizon=2)


@pytest.mark.parametrize("rows", [7, 32])
def test_errors_of_a_series_are_those_of_the_served_model(
    weir: Weir, fake: FakeServer, sales: Path, tmp_path: Path, rows: int
) -> None:
    values = np.loadtxt(sales, skiprows=1)
    origins = np.arange(80, 99)
    errors = values[origins[:, None] + [0, 1]] - values[origins - 1][:, None]
    rmse = np.sqrt(np.square(errors).mean(axis=0))
    mase = np.abs(errors).mean(axis=0) / np.abs(np.diff(values[:70])).mean()
    digest, measured = checksum(sales), {"test_rmse_1": rmse[0], "test_mase_2": mase[1]}
    right = bundle_of(tmp_path / "right", series=SALES, training=trained(digest, **measured))
    wrong = bundle_of(tmp_path / "wrong", series=SALES, training=trained(digest, test_rmse_2=9.0))
    imported = bundle_of(tmp_path / "imported", series=SALES)

    order = ["evaluate", "steady", "--data", sales, "--rows", rows, "--target", fake.target]
    done = {bundle: weir(*order, "--bundle", bundle) for bundle in (right, wrong, imported)}

    assert done[right].code == 0 and done[right].out.endswith(f"{AS_EXPECTED}\n")
    found = scores_of(done[right].out)
    assert found == pytest.approx(
        {
            "rmse": np.sqrt(np.square(errors).mean()),
            "rmse_1": rmse[0],
            "rmse_2": rmse[1],
            "mase": mase.mean(),
            "mase_1": mase[0],
            "mase_2": mase[1],
            **{name: found[name] for name in ("ar9_rmse", "ar9_mase")},
            # The fake server repeats the last value.
            "persistence_rmse": np.sqrt(np.square(errors).mean()),
            "persistence_mase": mase.mean(),
        },
        rel=1e-5,
    )
    assert found["ar9_rmse"] < found["rmse"]
    assert done[wrong].code == 1 and "expected rmse_2 9, got" in done[wrong].err
    first, *_, last = done[imported].out.splitlines()
    assert first.endswith("   over 2 steps ahead")
    assert last.endswith("   baseline persistence")
    assert done[imported].code == 0 and "expected" not in done[imported].out


def test_a_csv_file_of_european_excel_is_measured(
    weir: Weir, fake: FakeServer, sales: Path, tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "models", series=SALES)
    numbers = (f"{number}0" for number in sales.read_text().split()[1:])
    commas, doubtful = tmp_path / "commas.csv", tmp_path / "doubtful.csv"
    commas.write_text("".join(f"{each}\n" for each in ["sales", *numbers]).replace(".", ","))
    doubtful.write_text("sales;x\n" + "".join(f"1.{100 + row};0\n" for row in range(100)))
    order = ["--bundle", bundle, "--target", fake.target]

    plain, read = (weir("evaluate", "steady", "--data", path, *order) for path in (sales, commas))
    refused = weir("evaluate", "steady", "--data", doubtful, *order)
    chosen = weir("evaluate", "steady", "--data", doubtful, *order, "--decimal", "comma")

    assert plain.code == read.code == chosen.code == 0 and plain.out == read.out
    assert refused.code == 2 and "say --decimal point or --decimal comma" in refused.err


def test_a_series_is_compared_with_its_season_and_its_interval(
    weir: Weir, fake: FakeServer, sales: Path, tmp_path: Path
) -> None:
    values = np.loadtxt(sales, skiprows=1)
    origins = np.arange(80, 99)
    truth, last = values[origins[:, None] + [0, 1]], values[origins - 1][:, None]
    interval = PredictionInterval(level=0.8, lower=[-2.0, -1.0], upper=[2.0, 3.0])
    series = SALES.model_copy(update={"season": 5, "interval": interval})
    bundle = bundle_of(tmp_path, series=series)

    done = weir("evaluate", "steady", "--data", sales, "--target", fake.target, "--bundle", bundle)

    found = scores_of(done.out)
    season = np.stack([values[origins - 5], values[origins - 4]], axis=1)
    errors = truth - last
    held = (errors >= [-2.0, -1.0]) & (errors <= [2.0, 3.0])
    assert found["season_rmse"] == pytest.approx(np.sqrt(np.square(truth - season).mean()), 1e-5)
    assert found["coverage"] == pytest.approx(held.mean(), 1e-5)
    assert done.out.endswith("   share of the values within the 80% interval\n")


def test_a_series_of_another_name_is_chosen_by_its_column(
    weir: Weir, fake: FakeServer, sales: Path, tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "models", series=SALES)
    renamed, short = tmp_path / "renamed.csv", tmp_path / "short.csv"
    renamed.write_text(sales.read_text().replace("sales", "turnover"))
    short.write_text("\n".join(sales.read_text().split()[:12]))
    order = ["evaluate", "steady", "--bundle", bundle, "--target", fake.target, "--data"]

    plain, refused = weir(*order, sales), weir(*order, renamed)
    chosen, few = weir(*order, renamed, "--column", "turnover"), weir(*order, short)

    assert chosen.code == 0 and chosen.out == plain.out
    assert refused.code == few.code == 2
    assert refused.err.endswith("; if another column is that series, say --column NAME\n")
    assert few.err.endswith("; the evaluation fits AR(9) as the training does\n")


def test_a_series_needs_its_bundle_and_has_no_accuracy(
    weir: Weir, fake: FakeServer, sales: Path, tmp_path: Path
) -> None:
    order = ["evaluate", "steady", "--data", sales, "--target", fake.target]
    bundle = bundle_of(tmp_path / "models", series=SALES)
    other = bundle_of(tmp_path / "other", series=Series(target="price", lags=3, horizon=2))

    without = weir(*order)
    expecting = weir(*order, "--bundle", bundle, "--expect", "0.9")
    lacking = weir(*order, "--bundle", other)

    assert without.code == expecting.code == lacking.code == 2
    assert "needs --bundle" in without.err
    assert "forecasting has no accuracy" in expecting.err
    assert "expected a column 'price', got none" in lacking.err


SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
SOURCES = ["".join(letters) for letters in product("abc", repeat=4)]


def pair_of(
    root: Path,
    target: str,
    measured: dict[str, float] | None = None,
    joined: str | None = "spaces",
    *,
    data: str = "c",
) -> Path:
    """A bundle that reads the letters a, b and c, and answers with the three tokens of `target`.

    It was trained on what has the checksum `data`.
    """
    entries = {"tokens": [*SPECIAL, *"abc"], "previous": [*SPECIAL, *target.split()]}
    files = {
        f"vocabulary.{name}.txt": "".join(f"{entry}\n" for entry in each).encode()
        for name, each in entries.items()
    }
    assert pairs.CONTRACT.decoding is not None
    contract = pairs.CONTRACT.model_copy(
        update={
            "vocabularies": {name: f"vocabulary.{name}.txt" for name in entries},
            "tokenisation": Tokenisation(rule="letters", lower=True, unknown=1),
            "decoding": pairs.CONTRACT.decoding.model_copy(update={"detokenisation": joined}),
            "training": trained(data, **measured or {}).model_copy(update={"recipe": "pronounce"}),
        }
    )
    graphs = {"encoder.onnx": pairs.encoder(), "decoder.onnx": pairs.decoder()}
    return writer.write({**graphs, **files}, contract, root, "mirror")


def write_pairs(path: Path, spell: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """A file of pairs, every third wrong for `mirror`; returns the pairs of the test part."""
    right = {source: spell(source) for source in SOURCES}
    lines = {s: right[s] if row % 3 else spell("aacb") for row, s in enumerate(SOURCES)}
    path.write_text("".join(f"{source}\t{target}\n" for source, target in lines.items()))
    tested = load_pairs(str(path), "test")
    return [right[each] for each in tested.sources], [each for (each,) in tested.references]


@pytest.mark.parametrize("rows", [5, 32])
def test_error_rates_of_pairs_are_those_of_the_served_model(
    weir: Weir, fake: FakeServer, tmp_path: Path, rows: int
) -> None:
    data = tmp_path / "pairs.tsv"
    answers, wanted = write_pairs(data, lambda source: " ".join(source.upper()))
    wrong = [pair for pair in zip(answers, wanted, strict=True) if pair[0] != pair[1]]
    words = len(wrong) / len(wanted)
    tokens = token_error_rate([a.split() for a in answers], [[w.split()] for w in wanted])
    measured = {"test_word_error_rate": words, "test_token_error_rate": tokens}
    digest = checksum(data)
    as_trained = pair_of(tmp_path / "right", "A B C", measured, data=digest)
    otherwise = pair_of(
        tmp_path / "wrong", "A B C", {"test_word_error_rate": words + 0.001}, data=digest
    )
    imported = pair_of(tmp_path / "imported", "A B C", data=digest)

    order = ["evaluate", "mirror", "--data", data, "--rows", rows, "--target", fake.target]
    done = {
        bundle: weir(*order, "--bundle", bundle) for bundle in (as_trained, otherwise, imported)
    }

    assert 0 < words < 1
    told = f"asking {len(wanted)} pairs: what training held out of {data} (in the bundle: digits)\n"
    assert (done[as_trained].code, done[as_trained].err) == (0, told)
    assert done[as_trained].out.splitlines() == [
        f"word_error_rate {words:.6g}",
        f"token_error_rate {tokens:.6g}",
        AS_EXPECTED,
    ]
    assert done[otherwise].code == 1 and "expected word_error_rate" in done[otherwise].err
    assert "--quick goes with runs that had it, and no others" in done[otherwise].err
    assert done[imported].code == 0 and "expected" not in done[imported].out


def test_answers_of_subwords_are_scored_by_bleu(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    data = tmp_path / "pairs.tsv"
    spelt = str.maketrans({"a": " Ad", "b": "be", "c": " Co"})
    answers, wanted = write_pairs(data, lambda source: source.translate(spelt).strip())
    score = corpus_bleu(answers, [wanted], lowercase=True).score
    bundle = pair_of(tmp_path, "▁ad be ▁co", {"test_bleu": score}, "subwords", data=checksum(data))

    done = weir("evaluate", "mirror", "--data", data, "--bundle", bundle, "--target", fake.target)

    assert 0 < score < 100
    assert (done.code, done.out) == (0, f"bleu {score:.6g}\n{AS_EXPECTED}\n")


def test_a_file_that_was_not_trained_on_is_sent_whole(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    """What training measured is of other rows, and so no expectation."""
    data = tmp_path / "pairs.tsv"
    data.write_text("ab\tA B\nba\tB B\ncab\tC A B\n")
    bundle = pair_of(tmp_path, "A B C", {"test_word_error_rate": 0.25})

    done = weir("evaluate", "mirror", "--data", data, "--bundle", bundle, "--target", fake.target)

    assert done.code == 0
    assert done.err.startswith(
        f"asking 3 pairs: all of {data}; the bundle is of an earlier version"
    )
    assert done.out.splitlines() == [
        "word_error_rate 0.333333   training had 0.25 on its own test rows",
        "token_error_rate 0.142857",
    ]


def test_targets_may_lie_in_a_file_of_their_own(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    sources, targets = tmp_path / "a.txt", tmp_path / "b.txt"
    sources.write_text("".join(f"{source}\n" for source in SOURCES))
    targets.write_text("".join(f"{' '.join(source.upper())}\n" for source in SOURCES))
    digest = load_pair_file(sources, targets).checksum
    bundle = pair_of(tmp_path, "A B C", {"test_word_error_rate": 0.0}, data=digest)

    order = ["evaluate", "mirror", "--data", sources, "--bundle", bundle, "--target", fake.target]
    done = weir(*order, "--target-data", targets)

    assert (done.code, done.out.splitlines()[-1]) == (0, AS_EXPECTED)
    assert "word_error_rate 0\n" in done.out


def test_a_quick_run_gets_its_short_sources(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    """Of `pronounce`, six letters; what is longer would all be wrong here."""
    data = tmp_path / "pairs.tsv"
    short = "".join(f"{source}\t{' '.join(source.upper())}\n" for source in SOURCES)
    data.write_text(short + "".join(f"{source}{source}\tA\n" for source in SOURCES))
    bundle = pair_of(tmp_path, "A B C")

    order = ["evaluate", "mirror", "--data", data, "--bundle", bundle, "--target", fake.target]
    whole, quick = weir(*order), weir(*order, "--quick")

    assert "word_error_rate 0\n" in quick.out and "word_error_rate 0\n" not in whole.out
    assert "asking 81 pairs" in quick.err and ", up to 6 characters" in quick.err


def test_pairs_that_do_not_fit_are_refused(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    data = tmp_path / "pairs.tsv"
    write_pairs(data, lambda source: " ".join(source.upper()))
    bundle = pair_of(tmp_path / "right", "A B C")
    ids_only = pair_of(tmp_path / "ids", "A B C", joined=None)
    smaller = pair_of(tmp_path / "smaller", "A B")
    order = ["evaluate", "mirror", "--target", fake.target]

    told = {
        name: weir(*order, *options)
        for name, options in {
            "--expect": ["--data", data, "--bundle", bundle, "--expect", 0.5],
            "neither a set of pairs": ["--data", "no/such", "--bundle", bundle],
            "expected a bundle with tokenization rules": ["--data", data, "--bundle", ids_only],
            "expected token ids of the bundle's vocabulary": ["--data", data, "--bundle", smaller],
            "needs --bundle": ["--data", data],
            "expected an encoder-decoder, or --bundle of one": ["--data", data, "--quick"],
            "--with-stress goes with": ["--data", data, "--bundle", bundle, "--with-stress"],
        }.items()
    }

    assert [done.code for done in told.values()] == [2, 2, 2, 1, 2, 2, 2]
    assert all(message in done.err for message, done in told.items())
    assert all(done.err.splitlines()[-1].startswith("weir: ") for done in told.values())
