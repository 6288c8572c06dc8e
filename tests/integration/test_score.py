"""`weir score`: rows of files, in this process and by a server."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import weir
from tests.helpers import onnx_models
from tests.integration.harness import ANSWER_S, Server
from weir.client.errors import Unreachable, UsageError, WeirError
from weir.score.__main__ import main

ROWS = 5000
X = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4) / 8
WORDS = ["the", "cat", "sat", "dog"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "scores.parquet"


def score(model: Path | str, source: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    """Run the command; the rows of its output."""
    code = main([str(model), "--in", str(source), "--out", str(out), *flags])
    assert code == 0
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=777)
    return path


def fixed_lists(array: np.ndarray[Any, Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def npz(path: Path) -> Path:
    np.savez(path, x=X)
    return path


def json_lines(path: Path) -> Path:
    path.write_text(
        "".join(json.dumps({"x": row, "n": n}) + "\n" for n, row in enumerate(X.tolist()))
    )
    return path


def two_files(folder: Path) -> Path:
    for name, half in (("0", X[:2500]), ("1", X[2500:])):
        parquet(folder / f"{name}.parquet", x=fixed_lists(half))
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {
    "lists": lambda at: parquet(at / "x.parquet", x=X.tolist()),
    "lists of float32": lambda at: parquet(at / "x.parquet", x=pa.array(list(X))),
    "fixed lists": lambda at: parquet(at / "x.parquet", x=fixed_lists(X)),
    "integers": lambda at: parquet(at / "x.parquet", x=fixed_lists((X * 8).astype(np.int64))),
    "bytes": lambda at: parquet(
        at / "x.parquet", x=pa.array([row.tobytes() for row in X], pa.binary(16))
    ),
    "folder of files": lambda at: two_files(at / "x"),
    "json lines": lambda at: json_lines(at / "x.jsonl"),
    "arrays": lambda at: npz(at / "x.npz"),
}


@pytest.mark.parametrize("form", SOURCES)
def test_rows_of_every_form_keep_their_order(
    form: str, models: Path, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "x").mkdir()
    expected = X * 8 if form == "integers" else X

    rows = score(models / "affine", SOURCES[form](tmp_path), out)

    assert np.array_equal([row["y"] for row in rows], 2 * expected + 1)
    assert not any(row["error"] for row in rows)


def test_columns_are_named_and_kept(models: Path, tmp_path: Path, out: Path) -> None:
    source = parquet(tmp_path / "x.parquet", id=range(ROWS), pixels=fixed_lists(X))

    rows = score(models / "affine", source, out, "--columns", "x=pixels", "--keep", "id")

    assert [row["id"] for row in rows] == list(range(ROWS))
    assert rows[7]["y"] == (2 * X[7] + 1).tolist()


def test_bad_rows_say_why_and_harm_no_other(models: Path, tmp_path: Path, out: Path) -> None:
    cells: list[Any] = X.tolist()
    cells[3], cells[5], cells[9] = None, [1.0], [1.0, None, 2.0, 3.0]
    source = parquet(tmp_path / "x.parquet", x=pa.array(cells, pa.list_(pa.float32())))

    rows = score(models / "affine", source, out)

    bad = {3: "null", 5: r"\[4\]", 9: "numbers"}
    assert {n for n, row in enumerate(rows) if row["error"]} == set(bad)
    assert "got null" in rows[3]["error"] and "shape [4], got [1]" in rows[5]["error"]
    assert rows[5]["y"] is None
    good = [n for n in range(ROWS) if n not in bad]
    assert np.array_equal([rows[n]["y"] for n in good], 2 * X[good] + 1)


def test_bad_lines_say_why(models: Path, tmp_path: Path, out: Path) -> None:
    source = tmp_path / "x.jsonl"
    source.write_bytes(
        b'{"x": [1, 2, 3, 4]}\n{"x": [1\n[]\n\xff\n{"x": ["a", 1, 1, 1]}\n{}\n{"x": [0, 0, 0, 0]}'
    )

    rows = score(models / "affine", source, out)

    assert [row["y"] for row in rows] == [[3, 5, 7, 9], *[None] * 5, [1, 1, 1, 1]]
    errors = [row["error"] for row in rows]
    for error, part in zip(
        errors[1:6],
        ["expected a JSON object", "got list", "UTF-8", "x: expected", "null"],
        strict=True,
    ):
        assert part in error


def test_classes_have_labels(models: Path, tmp_path: Path, out: Path) -> None:
    scores = np.array([[0, 3, 1, 2], [9, 3, 1, 2]], np.float32)
    source = parquet(tmp_path / "x.parquet", x=fixed_lists(scores))

    rows = score(models / "labelled", source, out, "--outputs", "label", "--outputs", "y")

    assert [row["label"] for row in rows] == ["east", "north"]
    assert [row["y"] for row in rows] == (2 * scores + 1).tolist()


def test_sequences_share_batches_and_keep_their_lengths(
    models: Path, tmp_path: Path, out: Path
) -> None:
    tokens = [[n % 8] * (1 + n % 13) for n in range(300)]
    tokens[11], tokens[12] = [8], [1] * 17
    source = parquet(tmp_path / "x.parquet", tokens=tokens)

    rows = score(models / "sentences", source, out)

    assert "from 0 to 7" in rows[11]["error"] and "1 to 16" in rows[12]["error"]
    for n, row in enumerate(rows):
        if n not in (11, 12):
            assert row["y"] == [10.0 * token for token in tokens[n]]


def picture(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


COLOURS = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}
LABELS = ["red", "green", "blue"]


def pictures(folder: Path) -> Path:
    (folder / "pictures" / "deep").mkdir(parents=True)
    for name, colour in COLOURS.items():
        (folder / "pictures" / f"{name}.png").write_bytes(picture(colour))
    (folder / "pictures" / "deep" / "z.jpg").write_bytes(b"no picture")
    (folder / "pictures" / "notes.txt").write_text("no picture")
    return folder / "pictures"


@pytest.fixture(params=["process", "server"])
def model_of(
    request: pytest.FixtureRequest, models: Path, serve_house: Callable[[str], Server]
) -> Callable[[str], list[str]]:
    """The arguments that name a model of the repository, here or on the server."""
    if request.param == "process":
        return lambda name: [str(models / name)]
    target = serve_house("completion-queue").target
    return lambda name: [name, "--target", target]


def run(source: Path, out: Path, named: list[str], *flags: str) -> list[dict[str, Any]]:
    model, *others = named
    return score(model, source, out, *others, *flags)


def test_folder_of_pictures(
    model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    rows = run(pictures(tmp_path), out, model_of("colours"))

    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png", "deep/z.jpg"]
    assert [row["label"] for row in rows] == [*LABELS, None]
    assert [row["probability"] for row in rows] == [1.0, 1.0, 1.0, None]
    assert "expected JPEG or PNG" in rows[3]["error"]


@pytest.mark.parametrize("form", ["bytes", "structs", "file names"])
def test_pictures_of_a_table(
    form: str, model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    folder = pictures(tmp_path)
    contents = [picture(colour) for colour in COLOURS.values()]
    cells: dict[str, Any] = {
        "bytes": contents,
        "structs": [{"bytes": content, "path": None} for content in contents],
        "file names": [str(folder / f"{name}.png") for name in COLOURS],
    }
    source = parquet(tmp_path / "x.parquet", picture=[*cells[form], None], n=list("abcd"))

    rows = run(source, out, model_of("colours"))

    assert [row["label"] for row in rows] == [*LABELS, None]
    assert "null" in rows[3]["error"]


def test_bytes_named_as_the_input_are_its_values(
    model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    pixels = [bytes(colour) * 64 for colour in COLOURS.values()]
    source = parquet(tmp_path / "x.parquet", pixels=pixels, n=range(3))

    rows = run(source, out, model_of("colours"), "--columns", "image=pixels")

    assert [row["label"] for row in rows] == LABELS


def test_file_outside_the_folder_is_not_read(models: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture((255, 0, 0)))
    (tmp_path / "table").mkdir()
    names = ["../secret.png", str(tmp_path / "secret.png"), "/dev/zero", "missing.png", "."]
    source = parquet(tmp_path / "table" / "x.parquet", picture=names)

    code = main(
        [str(models / "colours"), *f"--in {source} --out {out} --columns picture=picture".split()]
    )

    errors = pq.read_table(out)["error"].to_pylist()
    assert code == 1
    assert ["in the folder of the table" in error for error in errors] == [True] * 3 + [False] * 2
    assert "got none" in errors[3] and "got none" in errors[4]


@pytest.mark.parametrize("variable", [False, True], ids=["nothing", "WEIR_TARGET"])
def test_path_goes_before_a_name(
    variable: bool,  # noqa: FBT001 - of the parametrization
    models: Path,
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable:
        monkeypatch.setenv("WEIR_TARGET", "127.0.0.1:1")
    monkeypatch.chdir(models)

    assert len(score("affine", npz(tmp_path / "x.npz"), out)) == ROWS
    with pytest.raises(Unreachable):
        score("affine", npz(tmp_path / "x.npz"), tmp_path / "o.parquet", "--target", "127.0.0.1:1")


def texts(path: Path) -> list[str]:
    lines = [" ".join(WORDS[n % 4 - k] for k in range(1 + n % 3)) for n in range(200)]
    lines[20] = ""
    path.write_text("\n".join(lines) + "\n")
    return lines


def test_texts_are_tagged_as_the_server_tags_them(
    model_of: Callable[[str], list[str]],
    serve_house: Callable[[str], Server],
    tmp_path: Path,
    out: Path,
) -> None:
    lines = texts(tmp_path / "texts.txt")

    rows = run(tmp_path / "texts.txt", out, model_of("tagger"))

    assert "got none" in rows[20]["error"]
    with weir.Client(serve_house("completion-queue").target, timeout_s=ANSWER_S) as client:
        for n, row in enumerate(rows):
            if n == 20:
                continue
            (tagged,) = client.tag("tagger", [lines[n]])
            assert row["tokens"] == [token.text for token in tagged]
            assert row["tags"] == [token.tag for token in tagged]
            assert row["tag_probabilities"] == pytest.approx(
                [token.probability for token in tagged], abs=1e-6
            )


def test_null_in_a_list_of_tokens_is_the_error_of_its_row(
    model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    source = parquet(tmp_path / "x.parquet", text=[["the", "cat"], ["the", None], ["sat"]])

    rows = run(source, out, model_of("tagger"))

    assert [row["tokens"] for row in rows] == [["the", "cat"], None, ["sat"]]
    assert [row["error"] for row in rows] == [None, "expected tokens, got null", None]


def test_names_of_pictures_are_no_texts(
    model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    with pytest.raises(WeirError, match="or the column 'text', got 'file', 'picture'"):
        run(pictures(tmp_path), out, model_of("tagger"))


def test_categories_are_texts(
    model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    sentences = pa.array(["the cat", "sat", "the cat"]).dictionary_encode()
    source = parquet(tmp_path / "x.parquet", text=sentences, n=range(3))

    rows = run(source, out, model_of("classifier"), "--keep", "text")

    assert [row["text"] for row in rows] == ["the cat", "sat", "the cat"]
    assert [row["label"] for row in rows] == ["article", "deed", "article"]


def test_texts_are_classified(
    model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    source = parquet(tmp_path / "x.parquet", n=[0, 1], sentence=["the cat the dog", "sat"])

    rows = run(source, out, model_of("classifier"), "--keep", "n")

    assert [(row["label"], row["n"]) for row in rows] == [("article", 0), ("deed", 1)]
    assert rows[0]["probability"] == pytest.approx(0.5)


def test_tensors_by_a_server(
    model_of: Callable[[str], list[str]], tmp_path: Path, out: Path
) -> None:
    cells: list[Any] = X[:100].tolist()
    cells[40] = [1.0]
    source = parquet(tmp_path / "x.parquet", x=cells)

    rows = run(source, out, model_of("labelled"))

    assert [row["label"] for row in rows[:40]] == ["west"] * 40
    assert rows[40]["label"] is None and "[4]" in rows[40]["error"]
    assert rows[41]["probability"] is not None


def test_texts_are_generated_as_the_server_generates_them(
    encoder_decoders: Path,
    serve_generating: Callable[[str], Server],
    tmp_path: Path,
    out: Path,
) -> None:
    server = serve_generating("completion-queue")
    lines = ["abc", "c", "", "bab", "ca" * 3] * 30
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    name = "pair"

    here = score(encoder_decoders / name, tmp_path / "texts.txt", out)
    there = score(
        name, tmp_path / "texts.txt", tmp_path / "there.parquet", "--target", server.target
    )

    assert here[0]["text"] and here[2]["error"] and there[2]["error"]
    with weir.Client(server.target, timeout_s=ANSWER_S) as client:
        for n in (0, 1, 3, 4):
            best = client.generate(name, lines[n]).result().hypotheses[0]
            for row in (here[n], there[n], here[n + 145]):
                assert row["text"] == best.text
                assert row["score"] == pytest.approx(best.score, abs=1e-5)


def test_shards_joined_are_the_whole(models: Path, tmp_path: Path, out: Path) -> None:
    source = npz(tmp_path / "x.npz")
    whole = score(models / "affine", source, out)

    shards = [
        score(models / "affine", source, tmp_path / f"{n}.parquet", "--shard", f"{n}/3")
        for n in (1, 2, 3)
    ]

    assert [row for shard in shards for row in shard] == whole


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More rows than are scored before a signal arrives."""
    path = tmp_path_factory.mktemp("many") / "many.parquet"
    array = np.random.default_rng(0).normal(size=(600_000, 4)).astype(np.float32)
    pq.write_table(pa.table({"x": fixed_lists(array)}), path)
    return path


@pytest.fixture(scope="module")
def uninterrupted(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    onnx_models.write_plain(root, "affine", onnx_models.affine())
    assert main([str(root / "affine"), "--in", str(many), "--out", str(root / "out.parquet")]) == 0
    return root


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_run_goes_on_and_gives_the_same_bytes(
    number: signal.Signals, many: Path, uninterrupted: Path, out: Path
) -> None:
    arguments = [str(uninterrupted / "affine"), "--in", str(many), "--out", str(out)]
    parts = out.with_name("scores.parquet.parts")
    with subprocess.Popen(
        [sys.executable, "-m", "weir.score", *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        end_s = time.monotonic() + ANSWER_S
        while len(list(parts.glob("*.arrow"))) < 3:
            assert time.monotonic() < end_s and process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=ANSWER_S)

    assert not out.exists()
    if number is not signal.SIGKILL:
        assert process.returncode == 130 and said == "weir: stopped; --resume goes on\n"
    with pytest.raises(UsageError, match="give --resume"):
        main(arguments)
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("*.arrow")}
    assert main([*arguments, "--resume"]) == 0
    assert len(kept) >= 3
    assert out.read_bytes() == (uninterrupted / "out.parquet").read_bytes()
    assert not parts.exists()


def test_resume_needs_the_same_run(models: Path, tmp_path: Path, out: Path) -> None:
    source = npz(tmp_path / "x.npz")
    parts = out.with_name("scores.parquet.parts")
    parts.mkdir()
    arguments = [str(models / "affine"), "--in", str(source), "--out", str(out), "--resume"]
    (parts / "run.json").write_text('{"input": "another"}')

    with pytest.raises(UsageError, match="a run with another input"):
        main(arguments)

    (parts / "run.json").unlink()
    assert main(arguments) == 0
    assert main(arguments) == 0
    with pytest.raises(UsageError, match="expected no such file"):
        main(arguments[:-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--in", "missing.parquet"], "no such file"),
        (["--in", "x.csv"], "expected a .parquet"),
        (["--columns", "z=x"], r"expected one of 'x'"),
        (["--columns", "x=z"], r"expected one of 'x', 'n'"),
        (["--columns", "x"], "expected INPUT=COLUMN"),
        (["--columns", "x=n"], "expected values of FP32, column 'n' has string"),
        (["--keep", "z"], "--keep z: expected one of x, n"),
        (["--outputs", "z"], "--outputs z: expected one of y"),
        (["--shard", "4/3"], "--shard: expected I/N"),
        (["--beam-width", "2"], "expected an encoder-decoder"),
        (["--out", "scores.csv"], "expected a name that ends in .parquet"),
    ],
)
def test_wrong_usage_is_named_and_writes_nothing(
    arguments: list[str],
    message: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    parquet(tmp_path / "x.parquet", x=X[:2].tolist(), n=["a", "b"])
    (tmp_path / "x.csv").write_text("1")

    with pytest.raises(WeirError, match=message):
        main([str(models / "affine"), "--in", "x.parquet", "--out", "o.parquet", *arguments])

    assert {path.name for path in tmp_path.iterdir()} == {"x.csv", "x.parquet"}


@pytest.mark.parametrize("name", ["broken", "without_rows", "nothing/there"])
def test_model_that_cannot_score_is_named(
    name: str, models: Path, tmp_path: Path, out: Path
) -> None:
    source = parquet(tmp_path / "x.parquet", x=[[1.0, 2.0]])

    with pytest.raises(WeirError, match=name.rpartition("/")[2]):
        main([str(models / name), "--in", str(source), "--out", str(out)])

    assert not out.with_name("scores.parquet.parts").exists()


def test_damaged_table_ends_the_run(models: Path, tmp_path: Path, out: Path) -> None:
    source = parquet(tmp_path / "x.parquet", x=fixed_lists(X))
    data = bytearray(source.read_bytes())
    data[4:40] = b"\xff" * 36
    source.write_bytes(data)

    with pytest.raises(WeirError, match="damaged"):
        main([str(models / "affine"), "--in", str(source), "--out", str(out)])


def test_input_without_rows_gives_an_output_without_rows(
    models: Path, tmp_path: Path, out: Path
) -> None:
    source = parquet(tmp_path / "x.parquet", x=pa.array([], pa.list_(pa.float32())))

    assert score(models / "affine", source, out) == []


def test_every_row_wrong_is_a_failure(models: Path, tmp_path: Path, out: Path) -> None:
    source = parquet(tmp_path / "x.parquet", x=[[1.0]] * 5)

    assert main([str(models / "affine"), "--in", str(source), "--out", str(out)]) == 1
    assert pq.read_table(out).column("error").null_count == 0


def test_command_prints_a_line_and_keeps_others_out_of_it(
    models: Path, tmp_path: Path, out: Path
) -> None:
    source = npz(tmp_path / "x.npz")

    done = subprocess.run(
        f"{sys.executable} -m weir score {models}/affine --in {source} --out {out}".split(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.startswith(f"{out}: 5,000 rows, in ")
    assert done.stderr == ""


@pytest.fixture(autouse=True)
def _signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before
