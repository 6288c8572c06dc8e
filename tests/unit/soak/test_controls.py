from pathlib import Path

import pytest

from tests.soak import controls
from tests.soak.controls import Control
from tests.soak.findings import Finding


def test_missed_bug_is_run_again_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders: list[str] = []

    def run_control(bug: str, _seed: int, folder: Path) -> Control:
        folders.append(folder.name)
        is_caught = bug == "always" or folder.name == "second-again"
        return Control(bug, Finding("I1", 0.0, "lost") if is_caught else None, 1)

    monkeypatch.setattr(controls, "run_control", run_control)
    shown: list[Control] = []

    found = controls.run_controls(
        ["always", "second", "never"], 7, tmp_path, at_once=1, done=shown.append
    )

    assert folders == ["always", "second", "never", "second-again", "never-again"]
    assert [(each.bug, each.is_caught) for each in found] == [
        ("always", True), ("second", True), ("never", False),
    ]  # fmt: skip
    assert len(shown) == 5
