"""A process's place among others; what they compute together is in the integration tests."""

import threading

import pytest
import torch
from torch import nn
from torch.distributed import HashStore  # type: ignore[attr-defined]

from weir.training.distributed import ALONE, ProcessGroup, is_lost_peer, join
from weir.training.errors import DeviceError, DistributedError
from weir.training.loop import Batch, MixupPartners

CPU = torch.device("cpu")
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "4"}, TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}],
    ids=["empty", "no rank", "one process"],
)
def test_without_others_there_is_no_process_group(environment: dict[str, str]) -> None:
    with join(environment) as group:
        assert group is ALONE
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_part_of_the_environment_is_refused(name: str) -> None:
    environment = {key: value for key, value in TORCHRUN.items() if key != name}

    with pytest.raises(DistributedError, match=f"{name}: RANK is set, .* got none"):
        join(environment).__enter__()


def test_a_rank_is_a_number() -> None:
    with pytest.raises(DistributedError, match=r"RANK: .* got '-1'"):
        join(TORCHRUN | {"RANK": "-1"}).__enter__()


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_each_row_belongs_to_one_process(rows: int, world_size: int) -> None:
    shares = [
        list(range(rows))[ProcessGroup(rank, world_size).share(rows)] for rank in range(world_size)
    ]

    assert sorted(row for share in shares for row in share) == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share == sorted(share) for share in shares)


def test_rows_are_taken_with_their_partners() -> None:
    batch = Batch(
        (torch.arange(10).reshape(5, 2), torch.arange(5)),
        torch.arange(5),
        MixupPartners(torch.arange(5).flip(0), 0.3),
    )

    own = batch.take(ProcessGroup(1, 2).share(5))

    assert [each.tolist() for each in own.inputs] == [[[2, 3], [6, 7]], [1, 3]]
    assert own.targets.tolist() == [1, 3]
    assert own.partners is not None
    assert (own.partners.targets.tolist(), own.partners.share) == ([3, 1], 0.3)


def test_processes_draw_other_dropout_and_a_step_draws_the_same_again() -> None:
    drawn = []
    for rank, step in ((0, 0), (1, 0), (0, 1), (1, 0)):
        ProcessGroup(rank, 2).seed_dropout(0, 0, step)
        drawn.append(torch.rand(4).tolist())

    assert drawn[1] == drawn[3]
    assert len({tuple(each) for each in drawn}) == 3


def test_one_process_keeps_its_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)

    ALONE.seed_dropout(0, 0, 0)

    assert torch.equal(torch.rand(4), expected)


def test_batch_normalisation_is_refused_on_the_cpu() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

    assert ALONE.synchronise_batch_norm(network, CPU) is network
    with pytest.raises(DeviceError, match=r"batch normalisation, whose statistics .* CUDA only"):
        ProcessGroup(0, 2).synchronise_batch_norm(network, CPU)


def test_a_failure_of_all_processes_is_reported_once_before_any_leaves() -> None:
    store, reported, left = HashStore(), [], []

    def fail(rank: int) -> None:
        ProcessGroup(rank, 3, rank, store).report_once(lambda: reported.append(rank))
        left.append(len(reported))

    threads = [threading.Thread(target=fail, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(reported) == 1
    assert left == [1, 1, 1]


def test_other_errors_are_not_taken_for_a_lost_process() -> None:
    lost = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"

    assert is_lost_peer(RuntimeError(lost))
    assert is_lost_peer(torch.distributed.DistNetworkError("reset"))
    assert not is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
