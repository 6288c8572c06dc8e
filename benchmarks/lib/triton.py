"""Triton as a rival: the server of the `nvidia-pytriton` wheel, around the graph of a bundle.

Its Python backend runs ONNX Runtime on the CPU (`rivals/triton_model.py`): one thread an instance,
dynamic batching, the bundle's batch size. The wheel contains the server; `_environment`
installs what else it needs.
"""

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from benchmarks.lib import virtual_environments
from benchmarks.lib.servers import Counters, Server, free_ports, listening
from weir.bundle.reader import MODEL

PACKAGE = "nvidia-pytriton"
COUNTERS = Counters(
    answered="nv_inference_request_success",
    answered_having="",
    batches="nv_inference_exec_count",
    computed="nv_inference_compute_infer_duration_us",
    computed_unit_s=1e-6,
)
_RIVAL = Path(__file__).parents[1] / "rivals" / "triton_model.py"
_DATATYPES = {
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float)": "TYPE_FP32",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph: ONNX type, and axes after the batch, -1 if any size."""

    name: str
    datatype: str
    sizes: Sequence[int]


@contextmanager
def serving(
    work: Path,
    models: Path,
    names: Sequence[str],
    *,
    max_rows: int,
    instances: int = 1,
    batching: str = "",
) -> Iterator[Server]:
    """Triton with version 1 of these bundles, once they are ready; `work` holds its environment.

    Args:
        batching: fields of `dynamic_batching` in each `config.pbtxt`.
    """
    packages = _install(work / "triton")
    grpc, metrics, http = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        for name in names:
            graph = models / name / "1" / MODEL
            _write_model(repository / name, graph, max_rows, instances, batching)
        server = packages / "pytriton" / "tritonserver"
        command = [
            str(server / "bin" / "tritonserver"), f"--model-repository={repository}",
            f"--backend-directory={server / 'backends'}",
            "--http-address=127.0.0.1", f"--http-port={http}",
            "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
            "--metrics-address=127.0.0.1", f"--metrics-port={metrics}",
            "--disable-auto-complete-config", "--log-info=false",
        ]  # fmt: skip
        with listening(
            command, names, port=grpc, metrics_port=metrics, http_port=http, counters=COUNTERS,
            environment=_environment(packages), log=Path(folder) / "log",
        ) as running:  # fmt: skip
            yield running


def config(
    name: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    max_rows: int,
    *,
    instances: int = 1,
    batching: str = "",
) -> str:
    """The `config.pbtxt` of a graph whose first axis is the batch."""
    entries = [_entry("input", each) for each in inputs] + [_entry("output", x) for x in outputs]
    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "python"',
            f"max_batch_size: {max_rows}",
            *entries,
            f"instance_group [ {{ count: {instances} kind: KIND_CPU }} ]",
            f"dynamic_batching {{ {batching}}}\n",
        ]
    )


def _entry(kind: str, tensor: Tensor) -> str:
    """A tensor entry; one without axes is sent as [batch, 1], as Triton requires."""
    sizes = ", ".join(map(str, tensor.sizes)) or "1"
    reshape = "" if tensor.sizes else " reshape { shape: [ ] }"
    datatype = _DATATYPES[tensor.datatype]
    return (
        f'{kind} [ {{ name: "{tensor.name}" data_type: {datatype} dims: [ {sizes} ]{reshape} }} ]'
    )


def _install(folder: Path) -> Path:
    """An environment with the wheel, without its own requirements, and with those of the model."""
    # The same ONNX Runtime as Weir's. The stub cannot read numpy 2's layout and sends no bytes.
    runtime = f"onnxruntime=={'.'.join(ort.__version__.split('.')[:3])}"
    virtual_environments.make(folder, [["--no-deps", PACKAGE], ["numpy<2", runtime]])
    packages = virtual_environments.site_packages(folder)
    server = packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    beside = server / "backends" / "python" / stub.name
    if not beside.exists():
        shutil.copy(stub, beside)
    return packages


def _environment(packages: Path) -> Mapping[str, str]:
    libraries = (packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"))
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PYTHONPATH": str(packages),
    }


def _write_model(folder: Path, graph: Path, max_rows: int, instances: int, batching: str) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copy(graph, version / MODEL)
    shutil.copy(_RIVAL, version / "model.py")
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs, outputs = map(_tensors, (session.get_inputs(), session.get_outputs()))
    text = config(folder.name, inputs, outputs, max_rows, instances=instances, batching=batching)
    (folder / "config.pbtxt").write_text(text)


def _tensors(arguments: Sequence[ort.NodeArg]) -> list[Tensor]:
    return [
        Tensor(each.name, each.type, [n if isinstance(n, int) else -1 for n in each.shape[1:]])
        for each in arguments
    ]
