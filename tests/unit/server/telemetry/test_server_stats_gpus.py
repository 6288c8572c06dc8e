"""GPU metrics, with a fake in place of pynvml."""

import logging
from dataclasses import dataclass, field

import pynvml
import pytest
from prometheus_client import CollectorRegistry

from weir.server.telemetry import server_stats
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.server_stats import Gpu, Gpus


@dataclass(frozen=True)
class Memory:
    total: int
    used: int


@dataclass(frozen=True)
class Rates:
    gpu: int


@dataclass
class FakeNvml:
    """Two GPUs; the functions in `failing` raise NVML's error."""

    failing: tuple[str, ...] = ()
    called: list[str] = field(default_factory=list)
    NVMLError: type[Exception] = pynvml.NVMLError

    def _call(self, name: str) -> None:
        self.called.append(name)
        if name in self.failing:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlInit(self) -> None:  # noqa: N802 - pynvml's names
        self._call("init")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._call("count")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._call(f"handle {index}")
        return 100 + index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        self._call("uuid")
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Memory:  # noqa: N802
        self._call("memory")
        return Memory(total=80 << 30, used=handle)

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> Rates:  # noqa: N802
        self._call("rates")
        return Rates(gpu=25)


def open_gpus(monkeypatch: pytest.MonkeyPatch, *failing: str) -> tuple[Gpus, FakeNvml]:
    nvml = FakeNvml(failing)
    monkeypatch.setattr(server_stats, "pynvml", nvml)
    return Gpus(), nvml


def registry_of(gpus: Gpus) -> CollectorRegistry:
    registry = CollectorRegistry()
    Metrics(registry, gpus=gpus, triton=True)
    return registry


def test_every_gpu_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, _ = open_gpus(monkeypatch)

    assert gpus.read() == [
        Gpu("0", "GPU-100", 100, 80 << 30, 0.25),
        Gpu("1", "GPU-101", 101, 80 << 30, 0.25),
    ]


def test_library_is_initialised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, nvml = open_gpus(monkeypatch)

    gpus.read()
    gpus.read()

    assert nvml.called.count("init") == 1 and nvml.called.count("memory") == 4


@pytest.mark.parametrize(
    "failing",
    [("init",), ("count",), ("handle 0", "handle 1"), ("uuid",)],
    ids=["no library or driver", "no count", "no handles", "no identity"],
)
def test_without_gpus_there_are_no_series_and_no_log_lines(
    failing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        gpus, _ = open_gpus(monkeypatch, *failing)
        names = {family.name for family in registry_of(gpus).collect()}

    assert gpus.read() == []
    assert not {name for name in names if "gpu" in name}
    assert caplog.text == ""


def test_machine_without_nvidias_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real pynvml, whose own call fails as on such a machine."""

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)

    assert Gpus().read() == []


def test_other_gpus_are_read_if_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, _ = open_gpus(monkeypatch, "handle 0")

    assert [gpu.index for gpu in gpus.read()] == ["1"]


def test_values_that_a_gpu_does_not_report_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(open_gpus(monkeypatch, "rates")[0])

    assert registry.get_sample_value("weir_gpu_memory_used_bytes", {"gpu": "1"}) == 101
    assert registry.get_sample_value("weir_gpu_memory_total_bytes", {"gpu": "0"}) == 80 << 30
    assert registry.get_sample_value("weir_gpu_utilization_ratio", {"gpu": "0"}) is None
    assert registry.get_sample_value("nv_gpu_memory_used_bytes", {"gpu_uuid": "GPU-101"}) == 101


def test_utilisation_has_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(open_gpus(monkeypatch)[0])

    assert registry.get_sample_value("weir_gpu_utilization_ratio", {"gpu": "0"}) == 0.25
    assert registry.get_sample_value("nv_gpu_utilization", {"gpu_uuid": "GPU-100"}) == 0.25
