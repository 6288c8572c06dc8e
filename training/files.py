"""Files that are there whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the place and rename: a reader sees the old file or the new one, never a part."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each in memory of its own, as safetensors wants them: tied weights share theirs."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return {name: tensor.contiguous() for name, tensor in separate.items()}
