"""The dashboards against Grafana's TypeScript types, in the version of docker-compose.yml."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.dashboards import dashboards, panels
from tools.dashboards.grafana_json import FOLDER

pytestmark = [
    pytest.mark.ops,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]

ROOT = Path(__file__).parents[2]
_TYPESCRIPT = "typescript@5.9.3"
_TYPES = "@grafana/schema/dist/types/raw"
# The published types have enums, whose members a JSON literal is not; `Json` replaces them by their
# values. Grafana fills in the options that a file leaves out; `Some` allows that.
_HEAD = f"""
import type {{ Dashboard }} from "{_TYPES}/dashboard/x/dashboard_types.gen";
import type {{ Options as heatmap }}
  from "{_TYPES}/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type {{ Options as stat }} from "{_TYPES}/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {{ Options as table }}
  from "{_TYPES}/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {{ Options as timeseries, FieldConfig }}
  from "{_TYPES}/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
type Json<T> = T extends string ? `${{T}}`
  : T extends object ? {{ [K in keyof T]: Json<T[K]> }} : T;
type Some<T> = T extends object ? {{ [K in keyof T]?: Some<T[K]> }} : T;
"""

Check = Callable[[list[dict[str, Any]]], str]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Type-checks dashboards and returns the compiler's messages."""
    folder = tmp_path_factory.mktemp("grafana-schema")
    stack = (ROOT / "docker-compose.yml").read_text("utf-8")
    (version,) = re.findall(r"grafana/grafana:([\d.]+)@", stack)
    packages = (f"@grafana/schema@{version}", _TYPESCRIPT)
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--prefix")
    installed = run("npm", "install", *flags, str(folder), *packages)
    assert installed.returncode == 0, installed.stdout + installed.stderr

    def check(pages: list[dict[str, Any]]) -> str:
        files = []
        for page in pages:
            file = folder / f"{page['uid']}.ts"
            file.write_text(_HEAD + "\n".join(statements(page)), "utf-8")
            files.append(str(file))
        compiler = str(folder / "node_modules" / ".bin" / "tsc")
        options = ("--strict", "--noEmit", "--skipLibCheck", "--moduleResolution", "node10")
        return run(compiler, *options, "--module", "esnext", *files).stdout

    return check


def statements(page: dict[str, Any]) -> Iterator[str]:
    """Constants whose types the compiler checks: the dashboard, and what its panels leave open."""
    yield f"export const page: Json<Dashboard> = {json.dumps(page)};"
    for panel in panels(page):
        name, kind, options = panel["id"], panel["type"], json.dumps(panel["options"])
        yield f"export const options{name}: Json<Some<{kind}>> = {options};"
        if "custom" in panel["fieldConfig"]["defaults"]:
            custom = json.dumps(panel["fieldConfig"]["defaults"]["custom"])
            yield f"export const custom{name}: Json<FieldConfig> = {custom};"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_dashboards_have_grafanas_types(check: Check) -> None:
    assert check(dashboards(FOLDER)) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"graphTooltip": 1', '"graphTooltip": 7'),
        ('"editable": false', '"editabel": false'),
        ('"colorMode": "value"', '"colorMode": "valu"'),
        ('"lineWidth": 1', '"lineWidht": 1'),
    ],
    ids=["number", "field", "option", "field of a panel"],
)
def test_wrong_dashboard_is_found(check: Check, right: str, wrong: str) -> None:
    text = (FOLDER / "model.json").read_text("utf-8")
    assert right in text

    assert "error TS2" in check([json.loads(text.replace(right, wrong, 1))])
