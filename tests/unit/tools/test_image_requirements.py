import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import image_requirements as made
from tools.image_requirements import Wheel

FILES = (
    made.REQUIREMENTS,
    made.FETCH_REQUIREMENTS,
    made.BUILD_REQUIREMENTS,
    made.CUDA_REQUIREMENTS,
)
LINE = re.compile(
    r'[a-z0-9-]+==\S+( ; platform_machine == "\w+")?(    --hash=sha256:[0-9a-f]{64})+'
)


def installed_needs(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        # The package of another machine.
        return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_requirement_has_one_version_and_a_hash(path: Path) -> None:
    _, *lines = path.read_text("utf-8").replace(" \\\n", "").splitlines()

    assert lines and all(map(LINE.fullmatch, lines))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_versions_are_those_that_are_tested(path: Path) -> None:
    tested = made.pinned(made.CONSTRAINTS.read_text("utf-8"))
    tested |= made.pinned(made.CUDA_CONSTRAINTS.read_text("utf-8"))

    found = made.pinned(path.read_text("utf-8"))

    assert found == {name: tested.get(name) for name in found}


@pytest.mark.parametrize("machine", made.MACHINES)
def test_everything_that_the_server_needs_is_there(machine: str) -> None:
    project = tomllib.loads((made.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = made.pinned(made.REQUIREMENTS.read_text("utf-8"), machine)
    extras = project["optional-dependencies"]
    waiting = [*project["dependencies"], *extras["server"], *extras["client"]]
    waiting += [each for each in extras["gateway"] if each != "weir[client]"]
    needed: set[str] = set()

    while waiting:
        for requirement in made.for_machine([waiting.pop()], machine):
            name = canonicalize_name(Requirement(requirement).name)
            if name not in needed:
                needed.add(name)
                waiting += installed_needs(name)

    assert len(needed) > 20 and needed <= set(pinned)


def test_a_marker_belongs_to_what_one_machine_needs() -> None:
    both = {
        "x86_64": [Wheel("one", "1", "a"), Wheel("two", "2", "b"), Wheel("known", "3", "c")],
        "aarch64": [Wheel("one", "1", "d")],
    }

    assert "".join(made.as_lines(both, {"known"})) == (
        "one==1 \\\n    --hash=sha256:a \\\n    --hash=sha256:d\n"
        'two==2 ; platform_machine == "x86_64" \\\n    --hash=sha256:b\n'
    )


def test_two_versions_of_a_package_are_refused() -> None:
    with pytest.raises(SystemExit, match=r"one: expected one version .*, got \['1', '2'\]"):
        list(made.as_lines({"a": [Wheel("one", "1", "")], "b": [Wheel("one", "2", "")]}, set()))
