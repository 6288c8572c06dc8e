"""NVML, in whose place stands a library of the test's."""

import ctypes
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from weir.server.telemetry.gpu import Gpu, Gpus, Memory, Rates
from weir.server.telemetry.metrics import Metrics


class Nvml:
    """As much of the library as is asked, with two GPUs."""

    def __init__(self, **codes: int) -> None:
        self.codes = codes
        self.asked: list[str] = []

    def _answer(self, name: str) -> int:
        self.asked.append(name)
        return self.codes.get(name, 0)

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's own names
        return self._answer("init")

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return self._answer("count")

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 100 + index.value
        return self._answer(f"handle {index.value}")

    def nvmlDeviceGetUUID(self, handle: Any, uuid: Any, length: Any) -> int:  # noqa: N802
        assert length.value == len(uuid)
        uuid.value = b"GPU-%d" % handle.value
        return self._answer("uuid")

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        told: Memory = memory._obj
        told.total, told.used = 80 << 30, handle.value
        return self._answer("memory")

    def nvmlDeviceGetUtilizationRates(self, _handle: Any, rates: Any) -> int:  # noqa: N802
        told: Rates = rates._obj
        told.gpu = 25
        return self._answer("rates")


def missing(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_every_gpu_is_read() -> None:
    assert Gpus(lambda _: Nvml()).read() == [
        Gpu("0", "GPU-100", 100, 80 << 30, 0.25),
        Gpu("1", "GPU-101", 101, 80 << 30, 0.25),
    ]


def test_library_is_asked_for_by_its_name_and_opened_once() -> None:
    opened: list[str] = []
    nvml = Nvml()
    gpus = Gpus(lambda name: (opened.append(name), nvml)[1])  # type: ignore[func-returns-value]

    gpus.read()
    gpus.read()

    assert opened == ["libnvidia-ml.so.1"]
    assert nvml.asked.count("init") == 1 and nvml.asked.count("memory") == 4


@pytest.mark.parametrize(
    "open_library",
    [
        pytest.param(missing, id="no library"),
        pytest.param(lambda _: object(), id="another library"),
        pytest.param(lambda _: Nvml(init=9), id="no driver"),
        pytest.param(lambda _: Nvml(count=1), id="no count"),
        pytest.param(lambda _: Nvml(**{"handle 0": 1, "handle 1": 1}), id="no handles"),
    ],
)
def test_without_nvml_nothing_is_told(open_library: Any) -> None:
    gpus = Gpus(open_library)
    registry = CollectorRegistry()
    Metrics(registry, gpus=gpus, triton=True)

    assert gpus.read() == []
    names = {family.name for family in registry.collect()}
    assert not {name for name in names if "gpu" in name}


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    registry = CollectorRegistry()
    Metrics(registry, gpus=Gpus(lambda _: Nvml(rates=3)), triton=True)

    assert registry.get_sample_value("weir_gpu_memory_used_bytes", {"gpu": "1"}) == 101
    assert registry.get_sample_value("weir_gpu_memory_total_bytes", {"gpu": "0"}) == 80 << 30
    assert registry.get_sample_value("weir_gpu_utilization_ratio", {"gpu": "0"}) is None
    assert registry.get_sample_value("nv_gpu_memory_used_bytes", {"gpu_uuid": "GPU-101"}) == 101


def test_utilization_is_told_under_both_names() -> None:
    registry = CollectorRegistry()
    Metrics(registry, gpus=Gpus(lambda _: Nvml()), triton=True)

    assert registry.get_sample_value("weir_gpu_utilization_ratio", {"gpu": "0"}) == 0.25
    assert registry.get_sample_value("nv_gpu_utilization", {"gpu_uuid": "GPU-100"}) == 0.25


def test_structures_are_as_large_as_nvmls() -> None:
    assert (ctypes.sizeof(Memory), ctypes.sizeof(Rates)) == (24, 8)
