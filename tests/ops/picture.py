"""Writes docs/pictures/dashboard.png: `python -m tests.ops.picture`, after `make demo`.

The demo's models under three minutes of traffic that swells and ebbs. After a good minute `inception-v1` gets more than it
can take for half a minute; meanwhile somebody sends what nobody understands.
"""

import math
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import weir
from deploy.grafana import render
from tests.integration.harness import running
from tests.ops import stack

ROOT = Path(__file__).parents[2]
SECONDS = 180.0
SETTINGS = """
[models.inception-v1]
max_queue_rows = 64
"""
_WORDS = ("weir", "river", "through", "enough", "colonel", "photograph", "steadily", "rhythm")
_BURST = (100.0, 135.0)


@dataclass(frozen=True)
class Stream:
    """Calls of one kind; `rate` is how many a second, at so many seconds after the start."""

    rate: Callable[[float], float]
    call: Callable[[weir.Client, random.Random], object]


def main() -> None:
    """Server, Prometheus, load, picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weir.toml").write_text(SETTINGS)
        flags = ("--config", str(folder / "weir.toml"))
        with (
            running(ROOT / ".demo" / "models", folder / "weir.server.log", *flags) as server,
            stack.prometheus(server.metrics, folder) as api,
        ):
            _drive(server.target)
            end_s = time.time()
            stack.wait_for_scrape(api)
            _draw(api.url, end_s)


def _draw(url: str, end_s: float) -> None:
    words = [
        "overview",
        "generation",
        f"--prometheus={url}",
        f"--end={end_s}",
        "--step=2",
        "--window=10s",
    ]
    words += [f"--minutes={(SECONDS - 10) / 60}", "--without", "Error budget", "--out"]
    render.main([*words, str(ROOT / "docs" / "pictures" / "dashboard.png")])


def _drive(target: str) -> None:
    """Every stream on its own thread, its calls on a pool: one that waits holds nobody up."""
    with (
        weir.Client(target) as client,
        ThreadPoolExecutor(200) as callers,
        ThreadPoolExecutor(len(_STREAMS)) as pacers,
    ):
        for seed, stream in enumerate(_STREAMS):
            pacers.submit(_pace, stream, random.Random(seed), client, callers)


def _pace(
    stream: Stream, chance: random.Random, client: weir.Client, callers: ThreadPoolExecutor
) -> None:
    """Calls come by chance, as callers who know nothing of each other do."""
    start_s = time.monotonic()
    at_s = 0.0
    while at_s < SECONDS:
        time.sleep(max(0.0, start_s + at_s - time.monotonic()))
        if chance.random() * _MOST < stream.rate(at_s):
            callers.submit(_tried, stream.call, client, chance)
        at_s += chance.expovariate(_MOST)


_MOST = 150.0
"""No stream has more calls a second."""


def _tried(
    call: Callable[[weir.Client, random.Random], object], client: weir.Client, chance: random.Random
) -> None:
    with suppress(weir.CallError):
        call(client, chance)


def _swell(low: float, high: float, period_s: float) -> Callable[[float], float]:
    return lambda t: low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * t / period_s))


def _burst(calm: float, wild: float) -> Callable[[float], float]:
    return lambda t: wild if _BURST[0] < t < _BURST[1] else calm


def _pictures(
    model: str, side: int, rows: tuple[int, ...], timeout_s: float
) -> Callable[[weir.Client, random.Random], object]:
    def call(client: weir.Client, chance: random.Random) -> object:
        image = np.zeros((chance.choice(rows), side, side, 1), np.uint8)
        return client.infer(model, {"image": image}, timeout_s=timeout_s)

    return call


def _say(client: weir.Client, chance: random.Random) -> object:
    search = weir.Beam(4) if chance.random() < 0.3 else None
    with client.generate("pronounce", chance.choice(_WORDS), search=search) as generation:
        if chance.random() < 0.08:
            return next(iter(generation), None)
        return generation.result()


_STREAMS = (
    Stream(_swell(15, 90, 60), _pictures("lenet5", 28, (1, 2), 5)),
    Stream(_burst(8, 110), _pictures("inception-v1", 28, (1, 8, 16), 0.3)),
    Stream(
        _swell(5, 30, 110),
        lambda client, chance: client.tag("stress", [list(chance.choice(_WORDS))]),
    ),
    Stream(_swell(4, 50, 80), _say),
    Stream(lambda t: 6.0 if 70 < t < 120 else 0.3, _pictures("lenet5", 27, (1,), 5)),
    Stream(lambda _: 0.7, _pictures("lenet4", 28, (1,), 5)),
)

if __name__ == "__main__":
    main()
