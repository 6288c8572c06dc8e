"""What a device can do."""

import pytest
import torch

from weir.training.device import has_mixed_precision


@pytest.mark.parametrize("ability", ["avx512_bf16", "amx_bf16", None])
def test_a_cpu_has_bfloat16_where_its_instructions_say_so(
    ability: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {ability: True, "avx2": True})

    assert has_mixed_precision(torch.device("cpu")) == (ability is not None)
