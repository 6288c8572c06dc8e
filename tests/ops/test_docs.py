"""The documentation page in a real Chromium, over a real gateway and a real server."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.gateway import gateway
from tests.integration.bad_models import publish
from tests.integration.harness import running
from tests.ops.browser import Browser
from weir.gateway.openapi import document

pytestmark = [pytest.mark.ops, pytest.mark.timeout(180)]

AFFINE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}],
    "id": "it's one",
}
_OPEN_ALL = """
document.querySelectorAll("details").forEach((each) => { each.open = true; });
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("docs")
    models = folder / "models"
    publish(models, "affine")
    with running(models, folder / "server.log") as server, gateway(server.target) as address:
        yield f"http://{address}"


def fill_infer(browser: Browser, url: str) -> None:
    """Open the operation of inference, and ask for `affine` in its form."""
    browser.open(f"{url}/docs#infer")
    browser.find("#infer[open] form")
    browser.fill("#infer-name", "affine")
    browser.fill("#infer-body", json.dumps(AFFINE))


def test_every_operation_is_listed(browser: Browser, url: str) -> None:
    browser.open(f"{url}/docs")
    browser.find("#schemas")

    # A path of one version stands with the path without it.
    expected = {
        operation["operationId"]
        for path, methods in document()["paths"].items()
        for operation in methods.values()
        if "/versions/" not in path
    }
    assert {each.get_attribute("id") for each in browser.all(".docs-operation")} == expected


def test_copied_curl_is_answered(browser: Browser, url: str) -> None:
    fill_infer(browser, url)
    browser.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )

    browser.click('button[aria-label="Copy curl: Infer"]')
    browser.wait_for_text("curl copied", "#infer .docs-buttons")

    copied = browser.driver.execute_async_script(
        "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](String(error)))"
    )
    answer = subprocess.run(["/bin/sh", "-c", copied], capture_output=True, check=True, timeout=60)
    assert json.loads(answer.stdout)["outputs"][0]["data"] == [1, 3, 5, 7]
    assert json.loads(answer.stdout)["id"] == "it's one"


def test_form_sends_its_call(browser: Browser, url: str) -> None:
    fill_infer(browser, url)

    browser.click("#infer button[type=submit]")

    browser.wait_for_text("200", "#infer .docs-answer")
    assert '"model_name": "affine"' in browser.text("#infer .docs-answer")


def test_form_shows_a_refusal(browser: Browser, url: str) -> None:
    browser.expected = [r"/v2/models/unknown/config .* 404 "]
    browser.open(f"{url}/docs#config")
    browser.find("#config[open] form")
    browser.fill("#config-name", "unknown")

    browser.click("#config button[type=submit]")

    browser.wait_for_text("404", "#config .docs-answer")
    assert "NOT_FOUND" in browser.text("#config .docs-answer")


def test_link_opens_its_schema(browser: Browser, url: str) -> None:
    browser.open(f"{url}/docs#tag")
    browser.find("#tag[open] form")

    browser.click('#tag a[href="#schema-TagRequest"]')

    browser.wait_for_text("texts", "#schema-TagRequest[open]")


def test_page_is_accessible_closed_and_open(browser: Browser, url: str) -> None:
    browser.open(f"{url}/docs")
    browser.find("#schemas")
    browser.require_accessible()

    browser.driver.execute_script(_OPEN_ALL)
    count = len(browser.all(".docs-operation"))
    browser.wait(lambda: len(browser.all(".docs-try")) == count, "not every operation is open")

    browser.require_accessible()
