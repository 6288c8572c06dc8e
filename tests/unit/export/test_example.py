import subprocess
from collections.abc import Callable
from pathlib import Path

from weir.bundle.reader import read

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_own_network_is_published(
    tmp_path: Path, python: Callable[..., list[str]], environment: dict[str, str]
) -> None:
    result = subprocess.run(
        python(EXAMPLES / "own_network.py", tmp_path),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    bundle = read(tmp_path / "distance" / "1")
    assert bundle.labels("logits") == ["far", "near"]
    golden = bundle.golden()
    assert golden is not None and set(golden.inputs) == {"left", "right"}
