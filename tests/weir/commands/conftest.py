import pytest

from tests.weir.commands.shell import Outcome, Weir
from weir import cli


@pytest.fixture
def weir(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Weir:
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run
