"""The driver of `messages` with atheris: inputs that reach new lines are kept and mutated again.

    python -m tests.fuzz.guided SEED FOLDER SECONDS

A process of its own: libFuzzer, which atheris is made of, does not return.
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

import atheris

# Instrumented code is slow: large inputs are for the other driver.
_MOST_BYTES = 40_000


def main(number: int, folder: Path, seconds: float) -> None:
    """Fuzz until the time is over, then end the process."""
    with atheris.instrument_imports(include=["weir.server.protocol", "weir.server.runtime"]):
        # Modules are instrumented when they are imported.
        from tests.fuzz import messages  # noqa: PLC0415
    from tests.fuzz.findings import Findings, say  # noqa: PLC0415
    from tests.fuzz.mutator import mutated  # noqa: PLC0415

    findings = Findings(folder, "messages", number)
    end_s = time.monotonic() + seconds

    def check(payload: bytes) -> None:
        if time.monotonic() > end_s:
            say(findings.line(", guided by coverage"))
            os._exit(0)
        messages.checked(findings, payload)
        findings.ran(1, ", guided by coverage")

    def mutate(payload: bytes, most_bytes: int, seed: int) -> bytes:
        random_ = random.Random(seed)
        if random_.random() < 0.3:
            return bytes(atheris.Mutate(payload, most_bytes))
        return mutated(payload, random_, most_bytes)

    folder.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix="weir-fuzz-"))
    for position, payload in enumerate(messages.seeds()):
        (corpus / str(position)).write_bytes(payload)
    # A seed of 0 is a random one for libFuzzer.
    flags = [f"-seed={number + 1}", f"-max_len={_MOST_BYTES}", "-verbosity=0", "-rss_limit_mb=0"]
    flags += [f"-artifact_prefix={folder}/messages-{number}-", "-timeout=60", "-len_control=0"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
