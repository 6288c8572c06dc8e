"""Generates `weir/protocol/*_pb2.py` from `protos/`: `python -m tools.protos`, or `--check`.

The .proto files import each other by their paths below `protos/`, so that they compile as they lie
for other languages. Python's generated modules then import each other as top-level modules; here
they become modules of `weir.protocol`, with a descriptor pool of their own (`weir/protocol/pool`).
"""

import argparse
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS, TARGET = Path("protos"), Path("weir/protocol")
_IMPORT = re.compile(r"^import (\w+_pb2)", re.MULTILINE)
_DEFAULT_POOL = (
    "from google.protobuf import descriptor_pool as _descriptor_pool",
    "_descriptor_pool.Default()",
)
_OWN_POOL = ("from weir.protocol import pool as _pool", "_pool.POOL")


def generate() -> dict[str, str]:
    """The generated modules and their type stubs, by file name."""
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        includes = ["-I", str(PROTOS), "-I", str(resources.files("grpc_tools") / "_proto")]
        outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", *includes, *outputs, *sources]):
            sys.exit("protoc failed")
        return {
            path.name: _of_protocol(path.read_text("utf-8"))
            for path in sorted(Path(folder).rglob("*_pb2.py*"))
        }


def _of_protocol(text: str) -> str:
    """A generated module or stub as a module of `weir.protocol`."""
    for default, own in zip(_DEFAULT_POOL, _OWN_POOL, strict=True):
        text = text.replace(default, own)
    return _IMPORT.sub(r"from weir.protocol import \1", text)


def main() -> None:
    """Write the modules, or exit with 1 if one of them is not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    is_check = parser.parse_args().check
    stale = []
    for name, text in generate().items():
        path = TARGET / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(str(path))
        if not is_check:
            path.write_text(text, "utf-8")
    if is_check and stale:
        sys.exit(f"not what protos/ says: {', '.join(stale)}; run `make proto`")


if __name__ == "__main__":
    main()
