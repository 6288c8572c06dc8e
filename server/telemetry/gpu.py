"""What NVIDIA's management library (NVML) says of the GPUs, asked through ctypes at each scrape.

Where there is no library, no driver or no GPU, there is nothing to tell, and that is no error.
"""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0
_UUID_BYTES = 96


class Library(Protocol):
    """NVML's functions, each of which returns 0 where all is well."""

    def nvmlInit_v2(self) -> int: ...  # noqa: D102, N802 - NVML's own names
    def nvmlDeviceGetCount_v2(self, count: object) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetHandleByIndex_v2(self, index: object, handle: object) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetUUID(self, handle: object, uuid: object, length: object) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetMemoryInfo(self, handle: object, memory: object) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetUtilizationRates(self, handle: object, rates: object) -> int: ...  # noqa: D102, N802


class Memory(ctypes.Structure):
    """`nvmlMemory_t`."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class Rates(ctypes.Structure):
    """`nvmlUtilization_t`, in percent of the last sample period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at the moment of a scrape; None is what it does not tell.

    Attributes:
        index: as NVML counts.
        uuid: its name for life.
        utilization: the share of time in which it computed anything.
    """

    index: str
    uuid: str
    used_bytes: int | None
    total_bytes: int | None
    utilization: float | None


class Gpus:
    """The GPUs of this machine.

    Args:
        open_library: finds NVML; raises OSError where there is none.
    """

    def __init__(self, open_library: Callable[[str], Library] = ctypes.CDLL) -> None:
        self._handles: list[tuple[str, str, ctypes.c_void_p]] = []
        try:
            self._nvml = open_library(_LIBRARY)
            self._handles = list(self._find())
        except (OSError, AttributeError):  # AttributeError: a library without these functions
            pass

    def read(self) -> list[Gpu]:
        """Each of them, now."""
        return [self._read(*each) for each in self._handles]

    def _find(self) -> Iterator[tuple[str, str, ctypes.c_void_p]]:
        nvml, count = self._nvml, ctypes.c_uint()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for index in range(count.value):
            handle, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(_UUID_BYTES)
            if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)):
                continue
            nvml.nvmlDeviceGetUUID(handle, uuid, ctypes.c_uint(_UUID_BYTES))
            yield str(index), uuid.value.decode("ascii", "replace"), handle

    def _read(self, index: str, uuid: str, handle: ctypes.c_void_p) -> Gpu:
        memory, rates = Memory(), Rates()
        told = self._nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == _SUCCESS
        rated = self._nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)) == _SUCCESS
        return Gpu(
            index,
            uuid,
            used_bytes=memory.used if told else None,
            total_bytes=memory.total if told else None,
            utilization=rates.gpu / 100 if rated else None,
        )
