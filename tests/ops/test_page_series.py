"""The arithmetic of the page's charts, run in the browser that runs it for a user.

The oracle for a quantile is numpy's interpolation of the cumulative counts.
"""

import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from tests.helpers.gateway import gateway
from tests.ops.browser import Browser

pytestmark = [pytest.mark.ops, pytest.mark.timeout(120)]

BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025]
_CALL = """
const [name, args, done] = arguments;
import("/static/series.js").then(
    (module) => done({result: module[name](...args)}),
    (error) => done({error: String(error)}));
"""


class Series:
    """`series.js`, loaded by a page."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def call(self, name: str, *arguments: Any) -> Any:
        answer = self._browser.driver.execute_async_script(_CALL, name, arguments)
        assert "error" not in answer, answer
        return answer["result"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A gateway whose server is not there: the page's files need none."""
    with gateway("127.0.0.1:9") as found:
        yield found


@pytest.fixture
def series(browser: Browser, address: str) -> Series:
    browser.expected = [r"/page/\w+ .* 503 "]
    browser.open(f"http://{address}/")
    return Series(browser)


def counts(model: str = "a", version: str = "1", **values: Any) -> dict[str, Any]:
    return {"model": model, "version": version, **values}


def scrape(time_s: float, *models: dict[str, Any], address: str = "one") -> dict[str, Any]:
    server = {"address": address, "problem": "", "models": list(models)}
    return {"time_s": time_s, "problem": "", "servers": [server]}


def histogram(*per_bucket: int, total: float = 0.0) -> dict[str, Any]:
    """A histogram from the counts of its buckets, the infinite one last."""
    cumulative = list(accumulate(per_bucket))
    bounds = BOUNDS[: len(per_bucket) - 1]
    return {"bounds": bounds, "counts": cumulative, "sum": total, "count": cumulative[-1]}


def test_quantiles_are_those_of_prometheus(series: Series) -> None:
    draw = random.Random(5)
    for _ in range(40):
        per_bucket = [draw.choice([0, draw.randint(1, 50)]) for _ in BOUNDS] + [0]
        if not any(per_bucket):
            continue
        cumulative = list(accumulate(per_bucket))
        # Never at the edge of a bucket, where empty ones make the inverse ambiguous.
        q = (draw.randrange(cumulative[-1]) + 0.5) / cumulative[-1]
        expected = np.interp(q * cumulative[-1], [0, *cumulative[:-1]], [0, *BOUNDS])

        actual = series.call("quantile", q, BOUNDS, cumulative)

        assert actual == pytest.approx(expected, rel=1e-12), (q, per_bucket)


def test_a_quantile_beyond_the_last_bound_is_that_bound(series: Series) -> None:
    assert series.call("quantile", 0.99, [1, 2], [0, 0, 10]) == 2
    assert series.call("quantile", 0.5, [1, 2], [0, 0, 0]) is None


def test_a_sample_is_what_happened_between_two_scrapes(series: Series) -> None:
    before = scrape(
        100,
        counts(
            requests={"OK": 10, "INTERNAL": 1},
            failures={"internal": 1},
            latency=histogram(4, 6, 0),
            batch_rows=histogram(3, 1, total=6),
            input_tokens=100,
            padded_tokens=100,
            queue_rows=9,
        ),
    )
    after = scrape(
        102,
        counts(
            requests={"OK": 20, "INTERNAL": 4},
            failures={"internal": 4},
            latency=histogram(4, 16, 0),
            batch_rows=histogram(3, 5, total=18),
            input_tokens=160,
            padded_tokens=180,
            queue_rows=5,
        ),
    )

    found = series.call("sample", before, after)

    assert found["requests_per_s"] == pytest.approx(6.5)
    assert found["failures_per_s"] == {"internal": pytest.approx(1.5)}
    assert found["p50_s"] == pytest.approx(0.00075)
    assert found["batch_rows"] == pytest.approx(3)
    assert found["padding_share"] == pytest.approx(0.25)
    assert found["queued_rows"] == 5
    assert found["tokens_per_s"] is None


def test_models_and_servers_are_added(series: Series) -> None:
    servers = []
    for time_s, ok in ((0, 0), (2, 10)):
        both = scrape(
            time_s, counts("a", requests={"OK": ok}), counts("b", requests={"OK": 2 * ok})
        )
        other = scrape(time_s, counts("a", requests={"OK": ok}), address="two")
        both["servers"] += other["servers"]
        servers.append(both)

    assert series.call("sample", *servers)["requests_per_s"] == pytest.approx(20)
    assert series.call("sample", *servers, "a")["requests_per_s"] == pytest.approx(10)
    assert series.call("modelNames", servers[0]) == ["a", "b"]


def test_a_restarted_server_counts_from_0(series: Series) -> None:
    before = scrape(0, counts(requests={"OK": 1000}, latency=histogram(900, 100)))
    after = scrape(2, counts(requests={"OK": 6}, latency=histogram(3, 3)))

    found = series.call("sample", before, after)

    assert found["requests_per_s"] == pytest.approx(3)
    assert found["p50_s"] == pytest.approx(BOUNDS[0])


def test_a_version_that_is_new_counts_from_0(series: Series) -> None:
    after = scrape(2, counts(version="2", requests={"OK": 8}))

    assert series.call("sample", scrape(0), after)["requests_per_s"] == pytest.approx(4)


@pytest.mark.parametrize("case", ["long ago", "same time", "other server", "problem"])
def test_a_gap_has_no_sample(series: Series, case: str) -> None:
    before, after = scrape(100, counts()), scrape(102, counts())
    match case:
        case "long ago":
            before["time_s"] = 80
        case "same time":
            before["time_s"] = 102
        case "other server":
            before["servers"][0]["address"] = "two"
        case "problem":
            before["servers"][0]["problem"] = "cannot be reached"

    assert series.call("sample", before, after) is None
