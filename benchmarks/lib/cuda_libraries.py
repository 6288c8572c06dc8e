"""The folders of CUDA's libraries in this environment, as NVIDIA's packages for Python bring them.

    export LD_LIBRARY_PATH=$(python -m benchmarks.lib.cuda_libraries)

A server imports no torch, so nothing else loads the libraries that lie beside torch.
"""

import os
import sysconfig
from pathlib import Path

VARIABLE = "LD_LIBRARY_PATH"


def library_path(packages: Path | None = None) -> str:
    """The folders below `packages`, this interpreter's by default, before those of the variable."""
    root = packages or Path(sysconfig.get_paths()["purelib"])
    found = sorted({str(file.parent) for file in root.glob("nvidia/**/lib*.so*")})
    return ":".join([*found, *filter(None, [os.environ.get(VARIABLE)])])


if __name__ == "__main__":
    print(library_path())
