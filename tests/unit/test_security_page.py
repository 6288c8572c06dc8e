"""What SECURITY.md names exists: settings, tests and files."""

import re
from pathlib import Path

import pytest

from weir.cli.options import ServerOptions
from weir.server.config import Settings

ROOT = Path(__file__).parents[2]
SPANS = re.findall(r"`([^`\n]+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
TESTS = "\n".join(
    path.read_text("utf-8")
    for folder in ("unit", "integration", "ops")
    for path in (ROOT / "tests" / folder).rglob("test_*.py")
)


@pytest.mark.parametrize("flag", sorted({span for span in SPANS if span.startswith("--")}))
def test_settings_exist(flag: str) -> None:
    name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")

    assert name in {*Settings.model_fields, *ServerOptions.__slots__}


@pytest.mark.parametrize("test", sorted({span for span in SPANS if span.startswith("test_")}))
def test_tests_exist(test: str) -> None:
    assert re.search(rf"def {test}\(", TESTS)


@pytest.mark.parametrize("path", sorted({span for span in SPANS if "/" in span}))
def test_files_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted({s for s in SPANS if s.startswith("make ")}))
def test_targets_exist(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")

    assert re.search(rf"^{target.removeprefix('make ')}:", makefile, re.MULTILINE)
