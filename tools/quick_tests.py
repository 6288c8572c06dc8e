"""Prints the unit tests of what changed since the last commit, or, in a clean tree, the pure ones.

The tests mirror the packages: `server/runtime/session.py` has its tests in
`tests/unit/server/runtime/`, in `test_session.py` and `test_session_<aspect>.py`. The tests of a
module without such files are those of its folder, without subfolders.
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


def tests_of(path: Path) -> list[Path]:
    """The files of tests for one file."""
    if path.suffix != ".py":
        return []
    if path.parts[0] == "tests":
        is_unit = path.is_relative_to(UNIT) and path.name.startswith("test_")
        return [path] if is_unit and path.exists() else []
    folder = UNIT / path.parent
    own = [*folder.glob(f"test_{path.stem}.py"), *folder.glob(f"test_{path.stem}_*.py")]
    return own or list(folder.glob("test_*.py"))


def main() -> None:
    """Print the arguments of pytest."""
    found = {tests for path in changed() for tests in tests_of(path)}
    print(*sorted(map(str, found or {UNIT / name for name in PURE})))


if __name__ == "__main__":
    main()
