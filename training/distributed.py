"""Data-parallel training: the processes that torchrun starts train one network together.

- A batch is global. Every process makes the same one, with the same order of rows, augmentation and
  hidden words, and computes every n-th row of it. The recipe's batch size and learning rate hold
  for the global batch.
- The loss is the mean over the targets of the global batch. `DistributedDataParallel` takes the
  mean of the gradients of the processes, so each process weighs its loss by its share of the
  targets.
- Every process decides alike, from sums over all: when to stop, which epoch is the best.
- Process 0 alone writes files and prints. An expected failure is printed once, by the first
  process that fails.

Without torchrun there is one process, no process group and no communication.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from weir.training.errors import DeviceError, DistributedError
from weir.training.reproducibility import DeviceName, Purpose, choose_device, derive_seed

_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
_FAILURES, _REPORTED = "weir/failures", "weir/reported"
_REPORT_WAIT = dt.timedelta(seconds=10)
"""A process that fails later waits so long for the message of the first one."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process's place among those that train together.

    rank: 0 to `world_size` - 1, over all machines.
    local_rank: the same on this machine, and the number of the GPU.
    store: what the processes share beside tensors; None if there is one process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    store: Store | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def choose_device(self, name: DeviceName) -> torch.device:
        """Return the named device, on CUDA the process's own GPU; errors as `choose_device`."""
        device = choose_device(name)
        if self.world_size == 1 or device.type != "cuda":
            return device
        if self.local_rank >= torch.cuda.device_count():
            raise DeviceError(
                f"expected a GPU for each process, got {torch.cuda.device_count()} of them and "
                f"local rank {self.local_rank}: lower --nproc-per-node, or add --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def synchronise_batch_norm(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network with statistics of batch normalisation over the global batch.

        Raises:
            DeviceError: it has batch normalisation, and is on the CPU.
        """
        if self.world_size == 1 or not any(isinstance(m, _BatchNorm) for m in network.modules()):
            return network
        if device.type != "cuda":
            raise DeviceError(
                "the network has batch normalisation, whose statistics several processes share on "
                "CUDA only; train it in one process, without torchrun"
            )
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted

    def wrap(self, network: nn.Module) -> nn.Module | None:
        """Return the network with gradients that are means over the processes; None for one.

        All begin with the weights of process 0.
        """
        if self.world_size == 1:
            return None
        # No device ids: with them, DDP would move the lengths of rows to the GPU, which packing
        # needs on the CPU. Buffers are constants, or statistics that are synchronised already.
        return DistributedDataParallel(network, forward_sync_buffers=False)

    def share(self, rows: int) -> slice:
        """The rows of a global batch that this process computes.

        Every n-th one, because rows that lie together are of similar length.
        """
        return slice(self.rank, rows, self.world_size)

    def seed_dropout(self, seed: int, epoch: int, step: int) -> None:
        """Seed torch's global generators for a step, so that processes draw other numbers.

        One process keeps the state that it has. With several, each step has its own seed: a
        checkpoint has the state of process 0 only.
        """
        if self.world_size > 1:
            torch.manual_seed(derive_seed(seed, Purpose.DROPOUT, epoch, step, self.rank))

    def sum(self, *values: float) -> list[float]:
        """Sum each value over the processes."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return [float(value) for value in total]

    def any(self, flag: bool) -> bool:  # noqa: FBT001  as the built-in
        """Whether the flag is set in one of the processes."""
        return self.sum(flag)[0] > 0.0

    def gather(self, value: Value) -> list[Value]:
        """The value of each process, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Value | None] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return [each for each in values if each is not None]

    def barrier(self) -> None:
        """Return when every process has come here."""
        self.sum(0.0)

    def require_equal(self, what: str, value: str) -> None:
        """Refuse to go on if processes differ, which would train on a mixture of both."""
        values = self.gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise DistributedError(
                    f"{what}: expected the same in all processes, got {values[0]} in process 0 "
                    f"and {other} in process {rank}; give each machine the same files"
                )

    def report_once(self, report: Callable[[], None]) -> None:
        """Call `report` if no other process has reported a failure; else wait until it has.

        A process that leaves first would have torchrun end the others before they have reported.
        """
        if self.store is None:
            report()
            return
        try:
            if self.store.add(_FAILURES, 1) > 1:
                self.store.wait([_REPORTED], _REPORT_WAIT)
                return
        except RuntimeError:
            # The store, or the process that was first, is gone.
            report()
            return
        report()
        self.store.set(_REPORTED, "1")


ALONE = ProcessGroup()
"""The only process of a run."""


@contextmanager
def join(environment: Mapping[str, str]) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; the group of one process without torchrun.

    Raises:
        DistributedError: the environment is not torchrun's, or the others are out of reach.
    """
    if "RANK" not in environment or environment.get("WORLD_SIZE") == "1":
        yield ALONE
        return
    rank, world_size, local_rank = (
        _number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    for name in _ADDRESS:
        if not environment.get(name):
            raise _unexpected(name, None)
    try:
        store, _, _ = next(rendezvous("env://", rank, world_size))
        # Sums of counts are made on the CPU, so gloo is always there.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    except distributed.DistError as error:
        address = ":".join(environment[name] for name in _ADDRESS)
        raise DistributedError(f"the other processes of {address}: {error}") from error
    yield ProcessGroup(rank, world_size, local_rank, store)
    # Not in a `finally`: after an unexpected error the others may be inside a collective, for whose
    # end NCCL would wait here. The process ends with its traceback, and torchrun ends the others.
    distributed.destroy_process_group()


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another process has ended; gloo has no class for it."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name)
    if value is None or not value.isdecimal():
        raise _unexpected(name, value)
    return int(value)


def _unexpected(name: str, value: str | None) -> DistributedError:
    return DistributedError(
        f"{name}: RANK is set, so expected torchrun's environment, got "
        f"{'none' if value is None else repr(value)}; start with torchrun, or unset RANK"
    )
