"""Abilities of devices, versions and commit."""

import platform

import pytest
import torch

from weir.training.reproducibility import commit, has_bfloat16, versions


@pytest.mark.parametrize("ability", ["avx512_bf16", "amx_bf16", None])
def test_a_cpu_has_bfloat16_where_its_instructions_say_so(
    ability: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {ability: True, "avx2": True})

    assert has_bfloat16(torch.device("cpu")) == (ability is not None)


def test_versions_are_those_that_decide_the_numbers() -> None:
    assert set(versions()) == {"python", "torch", "numpy"}
    assert versions()["python"] == platform.python_version()


def test_the_commit_is_a_hash_or_none() -> None:
    found = commit()

    assert found is None or set(found.removesuffix("-dirty")) <= set("0123456789abcdef")
