"""Planted faults of the server, each of which the tests of its row in docs/faults.md must catch.

    make mutants
    python -m tests.mutants A15 D01

Each fault is an edit in a copy of the tree, in which the row's tests then run. First the same tests
must pass in a copy without a fault. The exit code is 0 if every fault was caught, 1 if one was
not, 2 if a fault could not be planted or the tests fail without one.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.faults import MUTANTS, Mutant, PlantError

ROOT = Path(__file__).parents[2]
_TEST_S = 120
"""The limit of one test: a fault that makes one hang is caught by it."""
_RUN_S = 240
_NOT_COPIED = (".git", ".venv", ".demo", "build", "dist", "__pycache__", ".*_cache", ".hypothesis")


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant the faults; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all that have a fault")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, metavar="N")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if not options.rows or mutant.row in options.rows]
    if unknown := set(options.rows) - {mutant.row for mutant in mutants}:
        parser.error(f"expected rows that have a fault, got {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="weir-mutants-") as folder:
        sound = _copy(Path(folder) / "sound")
        try:
            for mutant in mutants:
                mutant.plant(_copy(Path(folder) / mutant.row))
        except PlantError as error:
            sys.stderr.write(f"mutants: {error}\n")
            return 2
        with ThreadPoolExecutor(options.at_once) as pool:
            code, line, failed = _run(sound, mutants)
            if code != 0:
                sys.stderr.write(f"mutants: without a fault: {line} {failed}\n")
                return 2
            _say("| row | planted fault | caught by | seconds |\n|---|---|---|---|")
            return max(pool.map(lambda mutant: _try(Path(folder) / mutant.row, mutant), mutants))


def _try(tree: Path, mutant: Mutant) -> int:
    """Run a row's tests in a tree with its fault, and print the outcome; the exit code."""
    began_s = time.monotonic()
    code, line, failed = _run(tree, [mutant])
    caught = f"`{failed}`" if code == 1 and failed else f"NOT CAUGHT: {line}"
    spent_s = time.monotonic() - began_s
    _say(f"| {mutant.row} | {mutant.what} | {caught} | {spent_s:.0f} |")
    return 0 if code == 1 and failed else 1


def _run(tree: Path, mutants: Sequence[Mutant]) -> tuple[int, str, str]:
    """Run the tests of mutants in a tree: pytest's exit code, its last line, a test that failed.

    A test whose set-up fails does not count as one that failed.
    """
    chosen = [selection(tree, mutant) for mutant in mutants]
    files = sorted({file for found, _ in chosen for file in found})
    terms = [term for _, found in chosen for term in found]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    command += ["--timeout", str(_TEST_S), "-k", " or ".join(terms), *files]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_S * (1 + len(mutants) // 4),
        )
    except subprocess.TimeoutExpired:
        return -1, "the tests did not end in time", ""
    failed = re.search(r"^FAILED \S*::(\w+)", done.stdout, re.MULTILINE)
    last = (done.stdout + done.stderr).strip().splitlines()[-1:]
    return done.returncode, "".join(last), failed[1] if failed else ""


def selection(tree: Path, mutant: Mutant) -> tuple[list[str], list[str]]:
    """The files of a mutant's tests, and a term of `pytest -k` for each test.

    A file whose tests carry numbers of rows serves several rows: of these only the own one runs.
    """
    files, terms = [], []
    for path in sorted((tree / "tests").rglob("test_*.py")):
        text = path.read_text()
        for name in mutant.tests:
            if not re.search(rf"^ *(async )?def {name}\(", text, re.MULTILINE):
                continue
            files.append(str(path.relative_to(tree)))
            has_row = re.search(rf"\"([A-H]\d\d-)*{mutant.row}(-[^\"\n]*)?\"", text)
            terms.append(f"({name} and {mutant.row})" if has_row else name)
    return sorted(set(files)), terms


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _copy(tree: Path) -> Path:
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    return tree


if __name__ == "__main__":
    sys.exit(main())
