"""Prints the unit tests of what changed since the last commit, or, in a clean tree, the pure ones.

The tests mirror the packages: `server/runtime/session.py` has its tests in
`tests/unit/server/runtime/`.
"""

import subprocess
from pathlib import Path

UNIT = Path("tests/unit")
# No process, no training, no file but temporary ones.
PURE = ("bundle", "server/protocol", "server/runtime", "server/scheduling", "server/telemetry")


def changed() -> list[Path]:
    """Files that differ from the last commit, or are new."""
    commands = (["diff", "--name-only", "HEAD"], ["ls-files", "--others", "--exclude-standard"])
    lines = (subprocess.check_output(["git", *command], text=True) for command in commands)
    return [Path(line) for output in lines for line in output.splitlines()]


def tests_of(path: Path) -> Path | None:
    """The folder or file of tests for one file; None if it has none."""
    if path.suffix != ".py":
        return None
    if path.parts[0] == "tests":
        is_unit = path.is_relative_to(UNIT) and path.name.startswith("test_")
        return path if is_unit and path.exists() else None
    folder = UNIT / path.parent
    return folder if folder.is_dir() else None


def main() -> None:
    """Print the arguments of pytest."""
    found = {tests for path in changed() if (tests := tests_of(path)) is not None}
    print(*sorted(map(str, found or {UNIT / name for name in PURE})))


if __name__ == "__main__":
    main()
