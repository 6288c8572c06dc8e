"""The gateway's page in a real Chromium, over a real gateway and a real server."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import weir
from tests.helpers import onnx_models, text_models
from tests.helpers.gateway import gateway
from tests.helpers.load import Load
from tests.helpers.ports import free_port
from tests.integration.bad_models import another_weight, publish
from tests.integration.generation import publish_endless
from tests.integration.harness import X, running
from tests.ops.browser import NARROW, SCHEMES, Browser
from weir.bundle.contract import Contract, Parity, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.writer import write

pytestmark = [pytest.mark.ops, pytest.mark.timeout(180)]

SECRET = "secret-of-everything-0123456789"  # noqa: S105 - made up
OF_ONE_MODEL = "secret-of-one-model-0123456789"
TOKENS = f"""
[tokens.everything]
token = "{SECRET}"

[tokens.one]
token = "{OF_ONE_MODEL}"
models = ["affine"]
calls = ["infer", "read"]
"""
# A request that fails is an error of the network in the browser's console.
UNAUTHENTICATED = r"/page/\w+ .* 401 "
UNREACHABLE = r"/page/\w+ .* 503 "
WITHOUT_MODELS = r"/page/models/\w+/network .* 501 "


def write_compared(models: Path) -> None:
    """A bundle that was compared with PyTorch when it was made."""
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    contract = Contract(
        task="other",
        architecture="affine",
        parity=Parity(
            max_absolute=2.384e-7,
            max_relative=1e-6,
            rows=2,
            batch_sizes=[1, 2],
            examples="zeros",
        ),
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    files = {
        "model.onnx": onnx_models.affine(),
        GOLDEN: encode(Golden({"x": x}, {"y": 2 * x + 1})),
    }
    write(files, contract, models, "compared")


@dataclass(frozen=True)
class Site:
    """A server with a gateway before it."""

    url: str
    target: str
    models: Path


@contextmanager
def serving(folder: Path, models: Path, *flags: str) -> Iterator[Site]:
    log = folder / f"server-{len(list(folder.glob('server-*')))}.log"
    with running(models, log, *flags) as server, gateway(server.target) as address:
        yield Site(f"http://{address}/", server.target, models)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Models of several kinds, one of which cannot be served."""
    folder = tmp_path_factory.mktemp("page")
    models = folder / "models"
    publish(models, "affine")
    write_compared(models)
    onnx_models.write_plain(models, "plain", onnx_models.softmax_of_batch())
    text_models.write_tagger(models)
    publish_endless(models)
    another_weight(publish(models, "broken"))
    with serving(folder, models) as found:
        yield found


@contextmanager
def load(target: str) -> Iterator[Load]:
    """Callers of `affine`, one of which sends what it does not take."""
    calls = Load()
    with weir.Client(target) as client:

        def wrong() -> None:
            with pytest.raises(weir.WeirError):
                client.infer("affine", np.zeros((1, 5), np.float32))

        right = [lambda: calls.repeat(lambda: client.infer("affine", X))] * 2
        with calls.running([*right, lambda: calls.repeat(wrong)]):
            yield calls


def row(model: str) -> str:
    """The selector of a model's row."""
    return f'tr[data-model="{model}"]'


def chart(key: str) -> str:
    """The selector of a chart's present value."""
    return f'[data-chart="{key}"]'


def drawn(browser: Browser, key: str) -> str:
    """How the first line of a chart is drawn."""
    path = browser.driver.execute_script(
        "return document.querySelector(arguments[0]).closest('figure')"
        ".querySelector('path')?.getAttribute('d') ?? ''",
        chart(key),
    )
    return str(path)


def test_models_are_listed_in_words(browser: Browser, site: Site) -> None:
    browser.open(site.url)

    browser.wait_for_text("passed, equal", row("affine"))
    assert "ready" in browser.text(row("affine"))
    assert "CPU, 1 thread, 1 batch at a time" in browser.text(row("affine"))
    assert "≤ 2.4e-7" in browser.text(row("compared"))
    assert "not compared" in browser.text(row("plain"))
    assert browser.text(f'{row("plain")} [data-head="Golden test"]') == "none"
    assert "not served" in browser.text(row("broken"))
    assert "1 not ready" in browser.text()
    assert "golden" in browser.text(f"{row('broken')} .reason")
    assert site.target in browser.text("header")
    assert f"Weir {version('weir')}" in browser.text("header").replace("\n", " ")


def test_a_model_has_an_address_with_its_facts(browser: Browser, site: Site) -> None:
    browser.open(site.url)

    browser.find(f"{row('plain')} a").click()

    browser.wait_for_text("requests run one at a time: ")
    assert browser.driver.current_url == f"{site.url}#/models/plain"
    assert browser.driver.title == "plain · Weir"
    browser.open(f"{site.url}#/models/compared")
    browser.wait_for_text("outputs differ from the original's by at most 2.4e-7")
    assert "passed: outputs differ from the recorded ones by at most 0" in browser.text()
    browser.open(f"{site.url}#/models/nothing")
    browser.wait_for_text("The server has no model nothing.")


def test_tabs_are_used_by_keyboard(browser: Browser, site: Site) -> None:
    browser.expected = [WITHOUT_MODELS]
    browser.open(f"{site.url}#/models/affine")
    tab = browser.find("#tab-try")

    tab.send_keys("\ue014")  # arrow right

    network = browser.find("#tab-network")
    assert network.get_attribute("aria-selected") == "true"
    assert browser.driver.switch_to.active_element == network
    assert browser.find("#panel-network").is_displayed()
    assert not browser.find("#panel-try").is_displayed()


def test_charts_show_the_load(browser: Browser, site: Site) -> None:
    browser.open(site.url)
    browser.wait_for_text("0 per second", chart("requests"))
    before = drawn(browser, "requests")

    with load(site.target):
        browser.wait(
            lambda: browser.text(chart("requests")) not in {"", "0 per second"}, "no requests shown"
        )
        browser.wait_for_text("p99", chart("latency"))
        browser.wait(lambda: "s" in browser.text(chart("latency")).split()[-1], "no latency shown")
        browser.wait(lambda: "row" in browser.text(chart("batch")), "no batch size shown")
        browser.wait_for_text("invalid request", ".chart:last-child .chart-legend")
        browser.wait(lambda: drawn(browser, "requests").count("L") >= 2, "the line does not grow")
        browser.wait(lambda: "/s" in browser.text(row("affine")), "no rate in the table")

    assert drawn(browser, "requests") != before
    picture = browser.find(f"figure:has({chart('requests')}) svg")
    assert picture.get_attribute("aria-label").startswith("Requests, now: ")
    browser.driver.execute_script(
        "const select = document.getElementById('charts-of'); select.value = 'tagger';"
        "select.dispatchEvent(new Event('change'))"
    )
    browser.wait_for_text("0 per second", chart("requests"))


def test_a_model_fails_and_recovers(browser: Browser, tmp_path: Path) -> None:
    models = tmp_path / "models"
    publish(models, "affine")
    publish(models, "other")
    flags = ("--model-control", "poll", "--poll-interval-s", "0.1")
    with serving(tmp_path, models, *flags) as site:
        browser.open(site.url)
        browser.wait_for_text("ready", row("affine"))
        good = models / "affine"
        good.rename(tmp_path / "good")

        browser.wait(lambda: not browser.all(row("affine")), "the model is still listed")
        another_weight(publish(tmp_path / "bad", "affine"))
        shutil.move(tmp_path / "bad" / "affine", good)
        browser.wait_for_text("not served", row("affine"))
        assert "golden" in browser.text(row("affine"))
        browser.go("#/models/affine")
        browser.wait_for_text("No version of this model answers requests.")
        shutil.rmtree(good)
        (tmp_path / "good").rename(good)

        browser.wait_for_text("passed: outputs differ from the recorded ones by at most 0")
        # Its modules are loaded before the gateway ends.
        browser.find(".try")
        browser.go("#/")
        browser.wait_for_text("ready", row("affine"))


def test_the_server_stops_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    models = tmp_path / "models"
    publish(models, "affine")
    ports = ("--port", str(free_port()), "--metrics-port", str(free_port()))
    browser.expected = [UNREACHABLE]
    with running(models, tmp_path / "first.log", *ports) as server:
        target = server.target
        with gateway(target) as address:
            browser.open(f"http://{address}/")
            browser.wait_for_text("per second", chart("requests"))
            server.kill()

            browser.wait_for_text("No server answers at", "#banner")
            browser.wait_for_text("no reading", chart("requests"))
            assert browser.all(".chart-gap")
            assert "affine" in browser.text(row("affine"))
            browser.require_accessible()
            with running(models, tmp_path / "second.log", *ports):
                browser.wait_for_text("per second", chart("requests"))
                assert not browser.find("#banner").is_displayed()
                assert browser.all(".chart-gap")


def test_the_gateway_stops_and_comes_back(browser: Browser, site: Site) -> None:
    port = str(free_port())
    browser.expected = ["ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_ABORTED"]
    with gateway(site.target, "--port", port) as address:
        browser.open(f"http://{address}/")
        browser.wait_for_text("ready", row("affine"))

    browser.wait_for_text("The gateway cannot be reached", "#banner")
    with gateway(site.target, "--port", port):
        browser.wait(lambda: not browser.find("#banner").is_displayed(), "the banner stays")
        browser.wait_for_text("per second", chart("requests"))


def test_tokens_protect_the_page(browser: Browser, tmp_path: Path) -> None:
    models = tmp_path / "models"
    publish(models, "affine")
    publish(models, "other")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(TOKENS)
    browser.expected = [UNAUTHENTICATED]
    flags = ("--tokens-file", str(tokens), "--open-health")
    with serving(tmp_path, models, *flags) as site:
        browser.open(site.url)
        field = browser.find("#token")
        assert field.get_attribute("type") == "password"
        assert browser.driver.switch_to.active_element == field
        assert "affine" not in browser.text("body")
        browser.require_accessible()

        browser.fill("#token", "wrong")
        browser.click(".sign-in button")
        browser.wait_for_text("The server does not know this token.")
        browser.fill("#token", SECRET)
        browser.click(".sign-in button")
        browser.wait_for_text("passed, equal", row("other"))
        browser.wait_for_text("per second", chart("requests"))
        browser.driver.refresh()
        browser.wait_for_text("passed, equal", row("other"))

        browser.wait(lambda: browser.find("#sign-out").is_displayed(), "no way out")
        browser.click("#sign-out")
        browser.fill("#token", OF_ONE_MODEL)
        browser.click(".sign-in button")
        browser.wait_for_text("the token may not read the metrics of all models (403)")
        browser.wait_for_text("passed, equal", row("affine"))
        assert not browser.all(row("other"))


@pytest.mark.parametrize("view", ["", "#/models/affine", "#/models/broken", "#/models/nothing"])
def test_views_are_accessible(browser: Browser, site: Site, view: str) -> None:
    browser.open(site.url + view)
    browser.wait_for_text("All models" if view else "passed, equal")

    browser.require_accessible()


def test_a_violation_is_found(browser: Browser, site: Site) -> None:
    """What the checks are for: low contrast, an unlabelled field, a broken policy, an overflow."""
    browser.open(site.url)
    browser.wait_for_text("passed, equal")
    browser.driver.execute_script(
        "document.querySelector('h2').style.color = '#888';"
        "document.querySelector('main').append(document.createElement('input'))"
    )
    for scheme in SCHEMES:
        browser.emulate(width=NARROW, scheme=scheme)
        found = "\n".join(browser.accessibility_problems())
        assert "label: " in found
        assert "color-contrast: " in found or scheme == "dark"

    browser.driver.execute_script(
        "const style = document.createElement('style'); style.textContent = 'p { color: red }';"
        "document.head.append(style)"
    )
    browser.wait(lambda: "Content Security Policy" in "".join(browser.errors()), "no violation")


def test_the_page_is_off_by_a_flag(site: Site) -> None:
    with gateway(site.target, "--no-page") as address:
        for path in ("/", "/static/app.js", "/page/models", "/page/metrics"):
            connection = HTTPConnection(address, timeout=30)
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 404
            assert b'"status":"NOT_FOUND"' in response.read()
            connection.close()
