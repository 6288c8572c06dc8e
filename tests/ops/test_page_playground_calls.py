"""The calls that the playground shows: pasted into a shell, they give the client's own answer."""

import ast
import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import weir
import weir.gateway
from tests.helpers import image_networks
from tests.helpers.gateway import gateway
from tests.integration.harness import running
from tests.ops import task_models

pytestmark = [pytest.mark.ops, pytest.mark.timeout(300)]

SECRET = "secret-of-everything-0123456789"  # noqa: S105 - made up
KINDS = ("curl", "python", "weir")
TEXTS = {
    "plain": "the cat sat",
    "quotes": """it's "quoted" `echo no` $HOME $(echo no) !! \\n \\""",
    "letters": "süß 猫 🐈 the",
    "lines": "the cat\nsat\t the",
    "a dash": "-",
    "an option": "--help me",
    "a control character": "the \x07 cat",
}
FILES = ("picture.png", """it's; a "picture", ü\\.png""", "-picture.png")
_SHOW = """
import * as calls from "./static/playground/call_texts.js";

const [name, place, values] = process.argv.slice(2).map((text) => JSON.parse(text));
console.log(JSON.stringify(calls[name](place, ...values)));
"""


@dataclass(frozen=True)
class Shell:
    """A folder in which calls are pasted, with a token in `token.txt`."""

    folder: Path
    modules: Path
    place: dict[str, Any]

    def shown(self, name: str, *values: Any) -> dict[str, str]:
        """The calls that a function of call_texts.js makes."""
        arguments = [json.dumps(each) for each in (name, self.place, values)]
        command = ["node", "show.js", *arguments]
        run = subprocess.run(command, cwd=self.modules, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        found: dict[str, str] = json.loads(run.stdout)
        return found

    def run(self, kind: str, text: str) -> str:
        """What a call prints. A shell gets it as it is; Python gets it on its standard input."""
        command = [sys.executable, "-"] if kind == "python" else ["sh", "-eu"]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # A table of the command line wraps at the terminal's width.
        environment = {**os.environ, "PATH": path, "COLUMNS": "1000", "PYTHONUTF8": "1"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            input=text,
            capture_output=True,
            encoding="utf-8",
            env=environment,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    models = tmp_path_factory.mktemp("calls") / "models"
    task_models.publish(models)
    image_networks.write_lenet5(models, "lenet5")
    folder, modules = (tmp_path_factory.mktemp(name) for name in ("shell", "modules"))
    shutil.copytree(Path(weir.gateway.__file__).parent / "static", modules / "static")
    (modules / "package.json").write_text('{"type": "module"}')
    (modules / "show.js").write_text(_SHOW)
    (folder / "token.txt").write_text(SECRET)
    tokens = folder / "tokens.toml"
    tokens.write_text(f'[tokens.everything]\ntoken = "{SECRET}"\n')
    flags = ("--tokens-file", str(tokens), "--open-health")
    with (
        running(models, folder / "log", *flags) as server,
        gateway(server.target) as address,
    ):
        place = {"origin": f"http://{address}", "target": server.target, "hasToken": True}
        yield Shell(folder, modules, place)


@pytest.fixture
def client(shell: Shell) -> Iterator[weir.Client]:
    with weir.Client(shell.place["target"], token=SECRET) as client:
        yield client


each_kind = pytest.mark.parametrize("kind", KINDS)
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))


@each_kind
@each_text
def test_tag(shell: Shell, client: weir.Client, kind: str, text: str) -> None:
    expected = client.tag("tagger", [text])[0]

    printed = shell.run(kind, shell.shown("tagCall", "tagger", text)[kind])

    if kind == "curl":
        tokens = json.loads(printed)["results"][0]["tokens"]
        assert [token["text"] for token in tokens] == [token.text for token in expected]
    elif kind == "python":
        lines = [f"{token.text} {token.tag} {token.probability}" for token in expected]
        assert printed.splitlines() == lines
    else:
        require_in_order(printed, [token.text for token in expected if token.text.isprintable()])


@each_kind
@each_text
def test_classify_text(shell: Shell, client: weir.Client, kind: str, text: str) -> None:
    expected = client.classify_text("classifier", [text], top=2)[0]

    printed = shell.run(kind, shell.shown("classifyTextCall", "classifier", text, 2)[kind])

    if kind == "curl":
        result = json.loads(printed)["results"][0]
        assert result["unknown"] == list(expected.unknown)
        assert [each["label"] for each in result["classes"]] == [
            each.label for each in expected.classes
        ]
    elif kind == "python":
        lines = [f"{each.label} {each.score}" for each in expected.classes]
        assert printed.splitlines() == lines
    else:
        require_in_order(printed, [each.label for each in expected.classes])


SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "attention": {"attention": True},
    "beam": {"beam": {"width": 3}, "n_best": 2},
    "sample": {"sample": {"temperature": 0.5, "seed": 7}},
    "samples": {"sample": {"temperature": 1.5, "seed": 7}, "n_best": 3},
    "few tokens": {"max_tokens": 2},
}


@each_kind
@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
def test_generate(shell: Shell, client: weir.Client, kind: str, search: dict[str, Any]) -> None:
    text = "abc'\"d"
    options = dict(search)
    beam, sample = options.pop("beam", None), options.pop("sample", None)
    found = weir.Beam(**beam) if beam else weir.Sample(**sample) if sample else None
    expected = client.generate("speller", text, search=found, **options).result()

    shown = shell.shown("generateCall", "speller", {"text": text, **search})
    printed = shell.run(kind, shown[kind])

    texts = [each.text for each in expected.hypotheses]
    if kind == "curl":
        data = printed.strip().rpartition("data: ")[2]
        assert [each["text"] for each in json.loads(data)["hypotheses"]] == texts
    elif len(texts) == 1:
        assert printed.splitlines()[0] == texts[0]
    else:
        require_in_order(printed, texts)


@each_kind
@each_text
def test_generate_from_any_text(shell: Shell, client: weir.Client, kind: str, text: str) -> None:
    # The model takes 16 letters.
    expected = client.generate("speller", text[:16]).result()

    printed = shell.run(kind, shell.shown("generateCall", "speller", {"text": text[:16]})[kind])

    if kind == "curl":
        result = json.loads(printed.strip().rpartition("data: ")[2])
        assert result["source"] == list(expected.source)
    else:
        assert printed.splitlines()[0] == expected.text


DAYS = [f"2024-01-{day:02d}" for day in range(1, 25)]
SERIES: dict[str, tuple[str, dict[str, list[float]], list[str] | None]] = {
    "one column": ("seasonal", {"passengers": [0.5 + at for at in range(24)]}, None),
    "dates": ("seasonal", {"passengers": [float(at) for at in range(24)]}, DAYS),
    "small numbers": ("seasonal", {"passengers": [-1e-7 * at for at in range(24)]}, DAYS),
    "an awkward name": ("awkward", {'it\'s "net", ü': [float(at) for at in range(24)]}, DAYS),
    "two columns": ("forecaster", {"sales": [1.0, 2.0, 3.25], "price": [9.0, 8.0, 7.0]}, DAYS[:3]),
}


@each_kind
@pytest.mark.parametrize("series", SERIES.values(), ids=list(SERIES))
def test_forecast(
    shell: Shell,
    client: weir.Client,
    kind: str,
    series: tuple[str, dict[str, list[float]], list[str] | None],
) -> None:
    model, columns, dates = series
    expected = client.forecast(model, columns, horizon=2)

    body = {"columns": columns, "dates": dates, "horizon": 2}
    printed = shell.run(kind, shell.shown("forecastCall", model, body)[kind])

    if kind == "curl":
        assert json.loads(printed)["values"] == expected.values.tolist()
    elif kind == "python":
        assert printed.splitlines() == [
            str(expected.values),
            f"{expected.lower} {expected.upper}",
        ]
    else:
        require_in_order(printed, [f"{value:.6g}" for value in expected.values])
        if dates:
            assert ("2024-01-25" if len(dates) == 24 else "2024-01-04") in printed


def png() -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (28, 28), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@each_kind
@pytest.mark.parametrize("name", ["", *FILES])
def test_classify(shell: Shell, client: weir.Client, kind: str, name: str) -> None:
    expected = client.classify("lenet5", [png()], top=3)[0]
    if name:
        (shell.folder / name).write_bytes(png())

    picture = {"base64": base64.b64encode(png()).decode(), "fileName": name}
    printed = shell.run(kind, shell.shown("classifyPictureCall", "lenet5", picture, 3)[kind])

    labels = [each.label for each in expected]
    if kind == "curl":
        classes = json.loads(printed)["results"][0]["classes"]
        assert [each["label"] for each in classes] == labels
    elif kind == "python":
        assert printed.splitlines() == [f"{each.label} {each.score}" for each in expected]
    else:
        require_in_order(printed, labels)


TENSORS: dict[str, tuple[str, list[Any]]] = {
    "bool": ("BOOL", [[True, False]]),
    "uint8": ("UINT8", [[0, 255], [1, 2]]),
    "int64": ("INT64", [[-(2**53), 2**53]]),
    "float16": ("FP16", [[0.5, -2]]),
    "float32": ("FP32", [[1e-7, 3.25]]),
    "text": ("BYTES", [['it\'s "one"\n$HOME', "猫 `echo`"]]),
}


@each_kind
@pytest.mark.parametrize("model", TENSORS)
def test_infer(shell: Shell, kind: str, model: str) -> None:
    datatype, values = TENSORS[model]
    shape = [len(values), 2]
    inputs = [{"name": "x", "datatype": datatype, "values": values}]
    body = {"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": values}]}

    printed = shell.run(kind, shell.shown("inferCall", model, inputs, body)[kind])

    flat = [value for row in values for value in row]
    if kind == "curl":
        assert json.loads(printed)["outputs"][0]["data"] == pytest.approx(flat)
    elif datatype == "BYTES":
        show: Callable[[str], str] = repr if kind == "weir" else lambda text: repr(text.encode())
        require_in_order(printed, [show(value) for value in flat])
    else:
        # A model's name is its type in numpy.
        require_in_order(printed, str(np.array(values, model)).splitlines())


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_python_literals_are_the_values(shell: Shell, text: str) -> None:
    values = {text: [text, 1, -0.5, True, False, None, [[]]]}
    show = (
        'import { pythonLiteral } from "./static/playground/call_texts.js";\n'
        "console.log(pythonLiteral(JSON.parse(process.argv[2])));\n"
    )
    (shell.modules / "literal.js").write_text(show)
    command = ["node", "literal.js", json.dumps(values)]

    run = subprocess.run(command, cwd=shell.modules, capture_output=True, text=True, check=True)

    assert ast.literal_eval(run.stdout) == values


def require_in_order(text: str, parts: list[str]) -> None:
    """Fail the test unless the text has each part behind the one before."""
    at = 0
    for part in parts:
        found = text.find(part, at)
        assert found >= 0, f"no {part!r} behind {at} in\n{text}"
        at = found + len(part)
