"""`weir gateway` with other limits of its connections: short times, few of them, few open files."""

import json
import resource
import sys
from functools import partial

from weir.cli.main import main
from weir.gateway import serve
from weir.gateway.http_connection import ConnectionLimits


def _run() -> None:
    limits = json.loads(sys.argv.pop(1))
    files = limits.pop("files", None)
    if files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    serve.serve = partial(serve.serve, limits=ConnectionLimits(**limits))
    main()


if __name__ == "__main__":
    _run()
