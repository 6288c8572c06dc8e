import sys
from types import ModuleType

import pytest

from tests.unit.weir.cli.shell import Weir
from weir.cli.launch import PROGRAMS


class Program:
    """A stand-in for another package's `__main__`."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        self.called: tuple[list[str], str] | None = None

    def main(self, arguments: list[str], program: str) -> int | None:
        self.called = (arguments, program)
        return self.code


def install(monkeypatch: pytest.MonkeyPatch, package: str, program: Program) -> None:
    module = ModuleType(f"{package}.__main__")
    module.main = program.main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"{package}.__main__", module)


@pytest.mark.parametrize("verb", sorted(PROGRAMS))
@pytest.mark.parametrize(
    "arguments",
    [[], ["models/", "--port", "0"], ["--help"], ["-x", "--", "-y", "--target=t", "--version"]],
    ids=" ".join,
)
def test_arguments_arrive_unchanged(
    weir: Weir, monkeypatch: pytest.MonkeyPatch, verb: str, arguments: list[str]
) -> None:
    program = Program(code=7)
    install(monkeypatch, PROGRAMS[verb][0], program)

    done = weir(verb, *arguments)

    assert program.called == (arguments, f"weir {verb}")
    assert done.code == 7


def test_a_program_without_an_exit_code_succeeded(
    weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "weir.server", Program(code=None))

    assert weir("serve").code == 0


@pytest.mark.parametrize("verb", sorted(PROGRAMS))
def test_the_real_programs_answer_to_the_verbs_name(weir: Weir, verb: str) -> None:
    done = weir(verb, "--help")

    assert done.code == 0 and f"weir {verb}" in done.out


def test_a_missing_part_is_named_with_the_way_to_get_it(
    weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "weir.training.__main__", raising=False)
    monkeypatch.setitem(sys.modules, "weir.training.__main__", None)

    def missing(arguments: list[str], program: str) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    program = ModuleType("weir.training.__main__")
    program.main = missing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "weir.training.__main__", program)

    done = weir("train", "lenet5")

    assert done.code == 2
    assert done.err == "weir: torch is not installed: pip install 'weir[train]'\n"
