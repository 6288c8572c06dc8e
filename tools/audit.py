"""Known vulnerabilities of what the image `serve` installs: `python -m tools.audit`.

pip-audit asks PyPI's feed; PIP_AUDIT_VULNERABILITY_SERVICE=osv asks OSV. Exit code 0: every package
was audited, and none has a known vulnerability; 1: some have; 2: some could not be audited.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.image_requirements import REQUIREMENTS

_NAMED = 3


def main() -> None:
    """Run pip-audit and say what it found."""
    command = [str(Path(sys.executable).parent / "pip-audit"), "--format", "json"]
    command += ["--progress-spinner", "off", "--require-hashes", "--disable-pip"]
    done = subprocess.run(
        [*command, "--requirement", str(REQUIREMENTS)], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        sys.stderr.write(f"audit: nothing was audited: {last[0]}\n")
        sys.exit(2)
    code, lines = verdict(packages)
    print("\n".join(lines))
    sys.exit(code)


def verdict(packages: Iterable[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """The exit code, and what to print, for the `dependencies` of pip-audit's report."""
    found = list(packages)
    skipped = [str(each["name"]) for each in found if "skip_reason" in each]
    lines = [
        f"{each['name']} {each['version']}: {known['id']}, fixed in "
        f"{', '.join(known['fix_versions']) or 'no version'}"
        for each in found
        for known in each.get("vulns", ())
    ]
    code = 1 if lines else 0
    audited = len(found) - len(skipped)
    lines.append(f"audit: {audited} of {len(found)} packages audited, {len(lines)} vulnerabilities")
    if not audited:
        lines.append("audit: the feed knows none of the packages: is it reachable from here?")
    elif skipped:
        more = " …" if len(skipped) > _NAMED else ""
        lines.append(f"audit: not audited: {', '.join(skipped[:_NAMED])}{more}")
    return (code or 2) if skipped else code, lines


if __name__ == "__main__":
    main()
