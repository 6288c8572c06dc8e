"""A headless Chromium, as Debian packages it, for tests of the gateway's page.

A test fails at its end if the page wrote an error to the console that the test does not expect.
The content security policy reports its violations there, too.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.waiting import wait_until

webdriver = pytest.importorskip("selenium.webdriver", reason="installed by make test-ops")

PROGRAM = "/usr/bin/chromium"
DRIVER = "/usr/bin/chromedriver"
AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
WIDE, NARROW = 1280, 360
HEIGHT = 900
SCHEMES = ("light", "dark")
# Rules of WCAG 2.0, 2.1 and 2.2 at the levels A and AA.
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_RUN_AXE = """
const done = arguments[1];
axe.run(document, {runOnly: arguments[0], resultTypes: ["violations"]}).then(
    (found) => done(found.violations.map((rule) => rule.nodes.map((node) =>
        `${rule.id}: ${node.target}: ${node.failureSummary}`)).flat()),
    (error) => done([String(error)]));
"""


class Browser:
    """One page in a browser.

    Attributes:
        driver: selenium's, for what has no method here.
        expected: patterns of the console's errors that the test causes.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.expected: list[str] = []

    def open(self, url: str) -> None:
        """Load a page anew."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def go(self, hash_: str) -> None:
        """Follow a link within the page, such as `#/models/lenet5`."""
        self.driver.execute_script("location.hash = arguments[0]", hash_)

    def find(self, selector: str) -> Any:
        """The element of a CSS selector, once it is there."""
        wait_until(lambda: bool(self.all(selector)), f"no element {selector}")
        return self.all(selector)[0]

    def all(self, selector: str) -> Sequence[Any]:
        """Every element of a CSS selector, now."""
        found: Sequence[Any] = self.driver.find_elements("css selector", selector)
        return found

    def text(self, selector: str = "main") -> str:
        """The visible text of an element; empty if there is none at present."""
        # A poll may replace the element between the two calls of the driver.
        found = self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
        return str(found)

    def wait_for_text(self, text: str, selector: str = "main") -> None:
        """Return once an element shows a text."""
        self.wait(lambda: text in self.text(selector), f"{selector}: no text {text!r}")

    def wait(self, is_true: Callable[[], bool], otherwise: str) -> None:
        """Return once a condition holds; the page's text is a part of the failure."""
        try:
            wait_until(is_true, otherwise)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text('body')}\n{self.errors()}") from error

    def fill(self, selector: str, text: str) -> None:
        """Type a text into an empty field."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def click(self, selector: str) -> None:
        """Click an element."""
        self.find(selector).click()

    def emulate(self, *, width: int = WIDE, scheme: str = "light") -> None:
        """Give the page a width and a colour scheme."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=HEIGHT,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            # A colour that is on its way to another one has no contrast to check.
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self._devtools("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """Save the page as it is shown."""
        self.driver.save_screenshot(str(path))

    def accessibility_problems(self) -> list[str]:
        """What axe finds against WCAG 2 A and AA; empty if all is well."""
        if not self.driver.execute_script("return Boolean(window.axe)"):
            # The driver runs it beside the page's own scripts, where no policy holds.
            self.driver.execute_script(AXE.read_text("utf-8"))
        found: list[str] = self.driver.execute_async_script(_RUN_AXE, _RULES)
        return found

    def require_accessible(self) -> None:
        """Fail the test if axe finds a violation, or the page scrolls sideways.

        In both colour schemes, wide and narrow.
        """
        for width in (WIDE, NARROW):
            for scheme in SCHEMES:
                self.emulate(width=width, scheme=scheme)
                found = self.accessibility_problems()
                assert not found, f"{width} pixels, {scheme}:\n" + "\n".join(found)
            reach = self.driver.execute_script("return document.documentElement.scrollWidth")
            assert reach <= width, f"the page is {reach} pixels wide, the window {width}"
        self.emulate()

    def errors(self) -> list[str]:
        """Errors of the console since the last look, without those that the test expects."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
            and not any(re.search(pattern, entry["message"]) for pattern in self.expected)
        ]

    def require_no_errors(self) -> None:
        """Fail the test if the console has an error that it does not expect."""
        assert not (found := self.errors()), "\n".join(found)

    def _devtools(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new profile; its console is checked at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAM
    # Containers let it neither make namespaces nor use much of /dev/shm.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A path is given, so that selenium downloads no driver.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(60)
        page = Browser(driver)
        page.emulate()
        yield page
        page.require_no_errors()
    finally:
        driver.quit()
