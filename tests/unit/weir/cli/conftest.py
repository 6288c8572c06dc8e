import pytest

from tests.unit.weir.cli.shell import Outcome, Weir
from weir.cli import main


@pytest.fixture
def weir(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Weir:
    monkeypatch.setenv("COLUMNS", "120")
    # A verb sets it for its process, which here is that of all tests.
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run
