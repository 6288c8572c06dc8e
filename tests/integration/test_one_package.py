"""Weir is one importable package: own folders named like its parts do no harm.

Every case runs in a folder with packages `server`, `export`, `training`, `bundle` and `protos`
whose import fails: once with Weir from a wheel in a fresh environment, once with the editable
install.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.harness import Server

ROOT = Path(__file__).parents[2]
PARTS = ("bundle", "export", "server", "training")
LIMIT_S = 300.0

PUBLISH = """
import sys
import torch
from weir.export import ExportSpec, publish

torch.manual_seed(0)
spec = ExportSpec(architecture="tiny", outputs=["logits"], labels={"logits": ["no", "yes"]})
network = torch.nn.Linear(3, 2)
published = publish(network, {"input": torch.randn(16, 3)}, spec, to=sys.argv[1], name="tiny")
print(published.path)
"""
HELP = """
import sys
from weir.cli.main import main

for verb in sys.argv[1:]:
    try:
        main([verb, "--help"])
    except SystemExit as ended:
        assert not ended.code, verb
"""
CALL = """
import sys
import numpy as np
import weir

with weir.Client(sys.argv[1]) as client:
    client.wait_ready("tiny")
    print(client.infer("tiny", np.zeros((5, 3), np.float32))["logits"].shape)
"""


@dataclass(frozen=True)
class Installation:
    """An interpreter with Weir, and the folder in which it runs.

    Attributes:
        python: the interpreter.
        package: where `weir` must come from.
        folder: holds the user's own packages.
    """

    python: Path
    package: Path
    folder: Path

    def run(self, *arguments: str, code: int = 0) -> str:
        """The standard output of the interpreter with these arguments."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == code, f"{arguments}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def weir(self, *arguments: str) -> str:
        """The standard output of a verb; `-m` puts the folder first on the import path."""
        return self.run("-m", "weir", *arguments)

    @contextmanager
    def serving(self, models: Path, log: Path) -> Iterator[Server]:
        """A server of `weir serve`."""
        command = [str(self.python), "-m", "weir", "serve", str(models), "--provider", "cpu"]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*command, "--port", "0", "--metrics-port", "0"],
                cwd=self.folder,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        server = Server(process, log)
        try:
            yield server
        finally:
            server.kill()


def environment() -> dict[str, str]:
    """This process's environment without additions to the import path."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    isolation = [] if importlib.util.find_spec("hatchling") is None else ["--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, timeout=LIMIT_S, cwd=folder)
    (built,) = folder.glob("weir-*.whl")
    return built


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """Weir in an environment of its own from the wheel, and this environment's editable install."""
    folder = tmp_path_factory.mktemp("project")
    for name in (*PARTS, "protos"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise ImportError('the own {name}')\n")
    if request.param == "editable":
        return Installation(Path(sys.executable), ROOT / "weir", folder)
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python = root / "bin" / "python"
    built = request.getfixturevalue("wheel")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", str(built)],
        check=True,
        timeout=LIMIT_S,
    )
    (packages,) = (root / "lib").glob("python3*/site-packages")
    # Dependencies come from this environment. The .pth files in it, which lead to the checkout, are
    # not processed, and the new environment's own packages come first.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    return Installation(python, packages / "weir", folder)


@pytest.fixture(scope="module")
def models(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model that this installation published."""
    root = tmp_path_factory.mktemp("models")

    path = installed.run("-c", PUBLISH, str(root))

    assert Path(path.strip()) == root / "tiny" / "1"
    return root


def located(installed: Installation, modules: Sequence[str]) -> list[Path]:
    """The files of modules, as the installation finds them."""
    program = (
        "import importlib, json, sys; "
        "print(json.dumps([importlib.import_module(name).__file__ for name in sys.argv[1:]]))"
    )
    return [Path(file) for file in json.loads(installed.run("-c", program, *modules))]


def test_weir_and_its_parts_come_from_the_installation(installed: Installation) -> None:
    files = located(installed, ["weir", *(f"weir.{part}" for part in PARTS)])

    expected = [installed.package, *(installed.package / part for part in PARTS)]
    assert [file.parent for file in files] == expected


def test_the_own_packages_are_what_the_folder_imports(installed: Installation) -> None:
    program = "import sys, importlib; importlib.import_module(sys.argv[1])"

    for part in (*PARTS, "protos"):
        installed.run("-c", program, part, code=1)


def test_the_wheel_holds_every_part_and_its_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    assert "weir/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"weir"}
    for folder in (ROOT / "weir", *(ROOT / part for part in PARTS)):
        inside = "weir" if folder.name == "weir" else f"weir/{folder.name}"
        sources = {f"{inside}/{path.relative_to(folder)}" for path in folder.rglob("*.py")}
        assert sources <= names
    page = [path for path in (ROOT / "weir/gateway/static").rglob("*") if path.is_file()]
    assert len(page) > 20
    assert {path.relative_to(ROOT).as_posix() for path in page} <= names


def test_every_verb_shows_its_help(installed: Installation) -> None:
    shown = installed.weir("--help")
    verbs = re.findall(r"^│ ([a-z][a-z-]*) ", shown, re.MULTILINE)

    text = installed.run("-c", HELP, *verbs)

    assert {"serve", "train", "export", "infer", "models", "inspect", "health"} <= set(verbs)
    for verb in verbs:
        assert re.search(rf"(?i)usage: weir {verb} ", text), verb


def test_a_model_is_published_served_and_called(
    installed: Installation, models: Path, tmp_path: Path
) -> None:
    with installed.serving(models, tmp_path / "log") as server:
        assert installed.run("-c", CALL, server.target) == "(5, 2)\n"
        target = ("--target", server.target)
        inferred = installed.weir("infer", "tiny", "--input", "[[0, 0, 0]]", "--json", *target)
        (listed,) = json.loads(installed.weir("models", "--json", *target))
        health = installed.weir("health", *target)
    inspected = installed.weir("inspect", str(models / "tiny"))

    assert json.loads(inferred)["outputs"]["logits"]["shape"] == [1, 2]
    assert (listed["name"], listed["version"], listed["state"]) == ("tiny", "1", "READY")
    assert health == "SERVING\n"
    assert "tiny" in inspected and "weight sharing" in inspected
