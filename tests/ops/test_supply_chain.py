"""The bill of materials, made as a user makes it."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tools.image_requirements import REQUIREMENTS, pinned

pytestmark = pytest.mark.ops

ROOT = Path(__file__).parents[2]
LIST = ROOT / "dist" / "weir-serve.cdx.json"


def test_bill_of_materials_names_what_the_image_installs() -> None:
    if shutil.which("cyclonedx-py", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("cyclonedx-py is installed by make test-ops")
    LIST.unlink(missing_ok=True)

    # The target validates the file against the schema of CycloneDX.
    command = ["make", "sbom"]
    made = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )

    assert made.returncode == 0, made.stdout + made.stderr
    found = json.loads(LIST.read_text("utf-8"))
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == ("CycloneDX", "weir")
    versions = {canonicalize_name(each["name"]): each["version"] for each in found["components"]}
    assert versions == pinned(REQUIREMENTS.read_text("utf-8"), platform.machine())
