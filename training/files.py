"""Files that are there whole or not at all."""

from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the place and rename: a reader sees the old file or the new one, never a part."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
