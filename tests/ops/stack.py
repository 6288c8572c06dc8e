"""A Prometheus process with the configuration of `deploy/prometheus`, which scrapes one server."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from tests.helpers.waiting import wait_until
from tests.ops.prometheus_api import Prometheus

CONFIG = Path(__file__).parents[2] / "deploy" / "prometheus"


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """Start Prometheus and yield its API once it is ready; kill it at the end.

    Args:
        target: the server's metrics port, `host:port`.
        folder: for its data, its configuration and its log.
    """
    log = folder / "prometheus.log"
    command = [
        "prometheus",
        f"--config.file={_config(target, folder)}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        wait_until(lambda: "Server is ready" in log.read_text(), f"see {log}")
        match = re.search(r'"Listening on" address=(\S+)', log.read_text())
        assert match is not None
        yield Prometheus(f"http://{match[1]}")
    finally:
        process.kill()
        process.wait()


def wait_for_scrape(api: Prometheus) -> None:
    """Return once Prometheus holds a scrape that began after this call."""
    asked_s = time.time()
    wait_until(
        lambda: any(at_s > asked_s for at_s in api.query('timestamp(up{job="weir"})')),
        "the server was not scraped",
    )


def wait_for_rules(api: Prometheus) -> None:
    """Return once every rule was evaluated twice after this call; alerts read recorded series."""
    for _ in range(2):
        asked_s = time.time()
        wait_until(partial(_are_evaluated, api, asked_s), "the rules were not evaluated")


def _are_evaluated(api: Prometheus, since_s: float) -> bool:
    return all(
        datetime.fromisoformat(group["lastEvaluation"]).timestamp() > since_s
        for group in api.ask("rules")["groups"]
    )


def _config(target: str, folder: Path) -> Path:
    """The deployed configuration with another target and shorter intervals."""
    text = (CONFIG / "prometheus.yml").read_text("utf-8")
    changes = {
        "server:8002": target,
        "scrape_interval: 5s": "scrape_interval: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
        "rules/*.yml": f"{CONFIG}/rules/*.yml",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, f"prometheus.yml: expected {old!r} once"
        text = text.replace(old, new)
    path = folder / "prometheus.yml"
    path.write_text(text, "utf-8")
    return path
