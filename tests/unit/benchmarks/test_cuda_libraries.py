from pathlib import Path

import pytest

from benchmarks.lib.cuda_libraries import VARIABLE, library_path


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for file in ("nvidia/cublas/lib/libcublas.so.13", "nvidia/cu13/lib/libcudart.so", "torch/a.so"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    (tmp_path / "nvidia/cublas/lib/libcublasLt.so.13").touch()
    return tmp_path


@pytest.mark.parametrize(("before", "after"), [("", ""), ("/opt/lib", ":/opt/lib")])
def test_folders_of_the_libraries_precede_those_that_are_set(
    before: str, after: str, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, before)

    expected = f"{packages}/nvidia/cu13/lib:{packages}/nvidia/cublas/lib{after}"
    assert library_path(packages) == expected
