"""MLServer as a rival: a custom runtime around a bundle's graph, with adaptive batching.

ONNX Runtime on the CPU (`rivals/onnx_runtime.py`), one process, one thread, the bundle's batch
size. A partial batch waits 20 ms: of 1, 5 and 20 ms that gives the highest throughput with 128 in
flight. A single caller would wait as long each time, so measure it with many callers only.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime as ort

from benchmarks.lib import virtual_environments
from benchmarks.lib.servers import Counters, Server, free_ports, listening
from weir.bundle.reader import MODEL

PACKAGE = "mlserver"
COUNTERS = Counters(
    answered="model_infer_request_success_total",
    answered_having="",
    batches="onnx_run_seconds_count",
    computed="onnx_run_seconds_sum",
)
_RIVAL = Path(__file__).parents[1] / "rivals" / "onnx_runtime.py"
_MAX_BATCH_TIME_S = 0.02


@contextmanager
def serving(work: Path, models: Path, name: str, *, max_rows: int) -> Iterator[Server]:
    """MLServer with the graph of a bundle, once it is ready; arguments as of `triton.serving`."""
    python = virtual_environments.make(
        work / "mlserver", [[PACKAGE, f"onnxruntime=={ort.__version__}"]]
    )
    grpc, metrics, http = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copy(models / name / "1" / MODEL, home / MODEL)
        shutil.copy(_RIVAL, home / _RIVAL.name)
        settings = {
            "debug": False,
            "host": "127.0.0.1",
            "grpc_port": grpc,
            "http_port": http,
            "metrics_port": metrics,
            "parallel_workers": 0,
        }
        model_settings = {
            "name": name,
            "implementation": f"{_RIVAL.stem}.OnnxRuntime",
            "parameters": {"uri": f"./{MODEL}"},
            "max_batch_size": max_rows,
            "max_batch_time": _MAX_BATCH_TIME_S,
        }
        (home / "settings.json").write_text(json.dumps(settings))
        (home / "model-settings.json").write_text(json.dumps(model_settings))
        command = [str(python.parent / "mlserver"), "start", str(home)]
        with listening(
            command, [name], port=grpc, metrics_port=metrics, http_port=http, counters=COUNTERS,
            log=home / "log",
        ) as running:  # fmt: skip
            yield running
