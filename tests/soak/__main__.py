"""The soak: a server under good traffic and faults for minutes or hours, and what is found.

    make soak MINUTES=60 SEED=7
    python -m tests.soak --minutes 60 --seed 7 --report soak.md

First each planted bug must be caught, or the run is void. The exit code is 0 if nothing was found,
1 if something was found, 2 if the run is void or invalid, 130 after Ctrl-C.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak import controls, report, schedule
from tests.soak.controls import Control
from tests.soak.planted import BUGS
from tests.soak.reconcile import reconcile
from tests.soak.run import Run
from tests.soak.schedule import Traffic


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a run; the exit code."""
    options = _options(arguments)
    # A stop by SIGTERM is one by Ctrl-C: the servers and clients must not outlive the soak.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="weir-soak-", dir=options.folder))
    found: list[Control] = []
    try:
        if options.planted:
            _say(f"{len(options.planted)} planted bugs, each in a server of its own:")
            found = controls.run_controls(
                options.planted,
                options.seed,
                folder / "planted",
                at_once=options.at_once,
                done=_say_control,
            )
        traffic = Traffic(
            good=options.rate * 0.9,
            disposable=options.rate * 0.1,
            deadline_s=options.deadline_s,
        )
        plan = schedule.plan(options.seed, options.minutes * 60, traffic, late_s=options.late_s)
        _say(f"{options.minutes:g} minutes with {len(plan.faults)} faults, seed {options.seed}:")
        own = folder / "run"
        own.mkdir()
        record = Run(plan, own, progress=_say).run()
        _say("reconciling the ledgers of the clients and of the servers")
        result = reconcile(record)
    except KeyboardInterrupt:
        _say("interrupted before the run began: there is nothing to report")
        return 130
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    problems = report.problems_of(record, result, options.max_lag_ms)
    command = f"make soak MINUTES={options.minutes:g} SEED={options.seed}"
    text = report.render(record, result, found, problems, command)
    if options.report:
        options.report.write_text(text)
        _say(f"report: {options.report}")
    for finding in result.findings[:20]:
        _say(f"{finding.invariant} at {finding.at_s - record.start_s:.2f} s: {finding.what}")
    is_passed, sentence = report.verdict(result, found, problems)
    _say(sentence)
    if options.keep:
        _say(f"ledgers and logs: {folder}")
    if not record.is_complete:
        return 130
    return 0 if is_passed else 1 if result.findings else 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the run (default 2)")
    parser.add_argument("--seed", type=int, default=1, help="of requests and faults (default 1)")
    parser.add_argument("--rate", type=float, default=420.0, help="good requests a second")
    parser.add_argument(
        "--deadline-s",
        type=float,
        default=Traffic().deadline_s,
        help="of a good request, with all its retries",
    )
    parser.add_argument("--report", type=Path, help="where to write the report, as Markdown")
    parser.add_argument(
        "--planted",
        type=_bugs,
        default=list(BUGS),
        metavar="BUG,...",
        help=f"planted bugs to catch first: all, none, or of {', '.join(BUGS)}",
    )
    parser.add_argument("--at-once", type=int, default=3, help="planted bugs at the same time")
    parser.add_argument(
        "--max-lag-ms", type=float, default=250.0, help="p99 above which the clients sent too late"
    )
    parser.add_argument(
        "--late-s",
        type=float,
        default=2.0,
        help="seconds that an attempt may end after its deadline",
    )
    parser.add_argument("--folder", type=Path, help="for models, ledgers and logs (default: /tmp)")
    parser.add_argument("--keep", action="store_true", help="keep the ledgers and the logs")
    return parser.parse_args(arguments)


def _bugs(text: str) -> list[str]:
    if text in ("all", "none"):
        return list(BUGS) if text == "all" else []
    names = text.split(",")
    for name in names:
        if name not in BUGS:
            raise argparse.ArgumentTypeError(f"expected planted bugs, got {name!r}")
    return names


def _say_control(control: Control) -> None:
    if control.finding is None:
        _say(f"  {control.bug}: NOT CAUGHT: {control.other[:300]}")
    else:
        _say(
            f"  {control.bug}: caught by {control.finding.invariant} after {control.after} answers"
        )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
