"""IO binding: tensors that stay in the memory of the device between the runs of a graph."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class DeviceTensor(Protocol):
    """A tensor in the memory of the device that runs the graph."""

    def numpy(self) -> Array:
        """A copy of its values."""


class BoundOutputs(NamedTuple):
    """The outputs of a run, by name.

    Attributes:
        arrays: those that were copied from the device.
        kept: those that stay in its memory.
    """

    arrays: Mapping[str, Array]
    kept: Mapping[str, DeviceTensor]


class Device(Protocol):
    """Runs a graph on tensors that may be in its memory; a `Session` is one."""

    def place(self, array: Array) -> DeviceTensor:
        """The array in the device's memory, which on a CPU is the array's own."""

    def run_bound(
        self, inputs: Mapping[str, Array | DeviceTensor], keep: Collection[str]
    ) -> BoundOutputs:
        """Every output for these inputs; the outputs `keep` stay on the device.

        Raises:
            ServerError: as `Session.run`.
        """
