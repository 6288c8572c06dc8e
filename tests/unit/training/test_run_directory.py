"""Atomic writes, and tensors in the form that safetensors needs."""

from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import nn

from weir.training.run_directory import unshare, write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"

    write_atomically(path, b"old")
    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_tied_weights_are_written_and_read() -> None:
    """Tied weights of embedding and output share their memory."""
    embedding, output = nn.Embedding(5, 3), nn.Linear(3, 5)
    output.weight = embedding.weight
    tied = nn.ModuleDict({"embedding": embedding, "output": output}).state_dict()

    read = load(save(unshare(tied)))

    assert all(torch.equal(read[name], tensor) for name, tensor in tied.items())


def test_views_are_written_as_what_they_show() -> None:
    whole = torch.arange(6.0).reshape(2, 3)

    read = load(save(unshare({"whole": whole, "turned": whole.T})))

    assert torch.equal(read["turned"], whole.T)
