"""Every planted fault can be planted, and names tests that its row of `docs/faults.md` names."""

import re
from pathlib import Path

import pytest

from tests.mutants.__main__ import selection
from tests.mutants.faults import MUTANTS, Mutant, PlantError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.row)
def test_fault_can_be_planted_and_its_tests_are_those_of_its_row(
    mutant: Mutant, tmp_path: Path
) -> None:
    line = next(
        line
        for line in (ROOT / "docs" / "faults.md").read_text().splitlines()
        if line.startswith(f"| {mutant.row} ")
    )
    copy = tmp_path / mutant.file
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / mutant.file).read_text())

    mutant.plant(tmp_path)

    compile(copy.read_text(), mutant.file, "exec")
    assert set(mutant.tests) <= set(re.findall(r"`(test_\w+)`", line))
    assert len(selection(ROOT, mutant)[1]) >= len(mutant.tests)


def test_text_that_is_gone_or_there_twice_is_refused(tmp_path: Path) -> None:
    mutant = Mutant("A01", "a fault", "file.py", "old", "new", ("test_request",))

    for text in ("", "old old"):
        (tmp_path / "file.py").write_text(text)
        with pytest.raises(PlantError, match=r"A01: file\.py: expected 'old' once"):
            mutant.plant(tmp_path)


def test_each_row_has_one_fault_at_most() -> None:
    rows = [mutant.row for mutant in MUTANTS]

    assert len(rows) == len(set(rows))
