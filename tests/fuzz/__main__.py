"""Fuzzing of the request contract, of the messages' bytes, and of raw HTTP/2.

    make fuzz MINUTES=20 SEED=7
    python -m tests.fuzz --minutes 20 --seed 7
    python -m tests.fuzz --part http2 --replay build/fuzz/http2-7-0123456789

The time is split among the parts. The input of each finding is saved; `--replay` runs it again. The
exit code is 0 if nothing was found, 1 if something was found, 130 after Ctrl-C.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz import contract, http2, messages
from tests.fuzz.findings import Fault, Findings, say

FOLDER = Path("build/fuzz")

_PARTS = ("contract", "messages", "http2")
_REPLAY: dict[str, Callable[[bytes, Path], None]] = {
    "contract": contract.replay,
    "messages": messages.replay,
    "http2": http2.replay,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, or replay a finding; the exit code."""
    options = _options(arguments)
    # The servers must not outlive the fuzzing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="weir-fuzz-"))
    try:
        if options.replay is not None:
            return _replay(options.part[0], options.replay, folder)
        seconds = options.minutes * 60 / len(options.part)
        found = [_run(part, options, seconds, folder) for part in options.part]
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(found) else 0


def _run(part: str, options: argparse.Namespace, seconds: float, folder: Path) -> list[Path]:
    """Fuzz a part; the files of its findings."""
    findings = Findings(options.folder, part, options.seed)
    say(f"{part}: {seconds:.0f} s, seed {options.seed}")
    if part == "messages":
        messages.run(findings, options.seed, options.folder, seconds=seconds)
    elif part == "contract":
        contract.run(findings, options.seed, folder / part, seconds=seconds)
    else:
        http2.run(findings, options.seed, folder / part, seconds=seconds)
    say(findings.line())
    return findings.files


def _replay(part: str, file: Path, folder: Path) -> int:
    try:
        _REPLAY[part](file.read_bytes(), folder / part)
    except Fault as fault:
        say(f"FOUND {part}: {fault}")
        return 1
    say(f"{part}: nothing is found with {file}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="of all inputs (default 1)")
    parser.add_argument(
        "--part", nargs="+", choices=_PARTS, default=list(_PARTS), help="default: all"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="the input of a finding")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    options = parser.parse_args(arguments)
    if options.replay is not None and len(options.part) != 1:
        parser.error("--replay: expected one --part, got all")
    return options


if __name__ == "__main__":
    sys.exit(main())
