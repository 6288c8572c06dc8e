"""The verdicts of the benchmark of the GPU, and the padding of batches that it compares."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu import (
    SizedSessions,
    mean_us,
    print_gains,
    served_names,
    sized_runs,
    verdict_on_sizes,
    verdict_on_steps,
)
from benchmarks.lib.harness import Run
from tests.helpers import onnx_models


def sized(search: str, way: str, p99_ms: float) -> Run:
    return Run(search, way, 0, {"rows_per_s": 1000.0, "p50_ms": 1.0, "p99_ms": p99_ms})


def test_verdict_names_the_least_p99_and_the_servers_own() -> None:
    runs = [
        sized("EXHAUSTIVE", "padded", 2.0),
        sized("DEFAULT", "padded", 3.0),
        sized("DEFAULT", "changing", 50.0),
    ]

    text = verdict_on_sizes(runs)

    assert "least p99 with EXHAUSTIVE, padded: 2.00 ms" in text
    assert "the server's DEFAULT, changing: 50.00 ms" in text


def test_verdict_on_steps_is_the_gain_of_io_binding() -> None:
    times = {("copied", 1): 30.0, ("IO binding", 1): 20.0}
    runs = [
        Run(way, f"{rows} rows", 0, {"step_us": times.get((way, rows), 10.0)})
        for way in ("copied", "IO binding")
        for rows in (1, 8, 32)
    ]

    assert verdict_on_steps(runs).endswith("1 rows 1.50, 8 rows 1.00, 32 rows 1.00")


def test_gains_are_printed_of_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rates = {("cpu", "lenet5"): 100.0, ("cuda", "lenet5"): 250.0, ("cuda", "lenet5-fp16"): 500.0}
    runs = [
        Run(provider, f"{name}, 128 in flight", 0, {"calls_per_s": rate})
        for (provider, name), rate in rates.items()
    ]

    print_gains(runs, "cuda")

    assert capsys.readouterr().out.splitlines() == [
        "calls/s, lenet5, 128 in flight: cuda / cpu 2.50",
        "calls/s, lenet5, 128 in flight: FP16 / FP32 2.00",
    ]


def test_half_precision_is_not_awaited_on_the_cpu(tmp_path: Path) -> None:
    for name in ("lenet5", "lenet5-fp16"):
        (tmp_path / name).mkdir()

    assert served_names(tmp_path, "cpu") == ["lenet5"]
    assert served_names(tmp_path, "cuda") == ["lenet5", "lenet5-fp16"]


@pytest.mark.parametrize(("is_shared", "sizes"), [(True, [4]), (False, [1, 2, 4])])
def test_each_size_is_prepared_once(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch, *, is_shared: bool
) -> None:
    rows = {"x": np.ones((4, 4), np.float32)}
    sessions = SizedSessions(onnx_models.affine(), "cpu", "no search", is_shared=is_shared)
    ran: list[int] = []
    run = SizedSessions.run

    def logged(self: SizedSessions, size: int, rows: dict[str, Any]) -> None:
        ran.append(size)
        run(self, size, rows)

    monkeypatch.setattr(gpu.SizedSessions, "run", logged)
    for size in (4, 1, 2, 4, 1):
        sessions.prepare(size, rows)
    prepared = sorted(ran)
    figures = sized_runs(sessions, lambda _: 4, rows, seconds=0.0)

    assert prepared == sizes
    assert len(ran) == len(prepared) + 5
    assert figures["p50_ms"] <= figures["p99_ms"]


def test_step_is_warmed_up_before_it_is_measured() -> None:
    calls: list[None] = []

    assert mean_us(lambda: calls.append(None), seconds=0.0) > 0
    assert len(calls) == 2
