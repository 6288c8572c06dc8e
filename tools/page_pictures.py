"""Pictures of the gateway's page for the README: the models with their charts, and a drawn digit.

    python tools/page_pictures.py http://127.0.0.1:8000/ --model lenet5

The server should be under load. The charts show the last two minutes, so the tool waits as long.
Needs Chromium with its driver, as `make test-ops` installs them, and the extra `ops`.
"""

import argparse
import io
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 1000
MAX_HEIGHT = 900
TIMEOUT_S = 30
# Pixels of the screen are two by two in the picture: text stays sharp where it is enlarged.
SCALE = 2
# Enough for the page, and less than half of the bytes.
COLOURS = 128
_BOTTOM = "return Math.ceil(document.querySelector(arguments[0]).getBoundingClientRect().bottom)"


def main() -> None:
    """Write page-models.png and page-digit.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="address of the page")
    parser.add_argument("--model", default="lenet5", help="a model of handwritten digits")
    parser.add_argument("--digit", type=int, choices=range(10), default=3)
    parser.add_argument("--wait-s", type=float, default=125, help="time for the charts to fill")
    arguments = parser.parse_args()
    driver = browser()
    try:
        driver.get(arguments.url)
        time.sleep(arguments.wait_s)
        save(driver, PICTURES / "page-models.png", "main")
        driver.get("about:blank")
        driver.get(f"{arguments.url}#/models/{arguments.model}")
        wait_for(driver, f'[aria-label="Sample {arguments.digit}"]').click()
        wait_for(driver, ".class-bars")
        save(driver, PICTURES / "page-digit.png", ".try")
    finally:
        driver.quit()


def browser() -> webdriver.Chrome:
    """A headless Chromium in the light colour scheme."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    resize(driver, MAX_HEIGHT)
    return driver


def wait_for(driver: webdriver.Chrome, selector: str) -> webdriver.remote.webelement.WebElement:
    """The element of a CSS selector, once it is there."""
    return WebDriverWait(driver, TIMEOUT_S).until(
        expected_conditions.presence_of_element_located(("css selector", selector))
    )


def resize(driver: webdriver.Chrome, height: int) -> None:
    """Give the page its width and a height, in pixels of CSS."""
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": SCALE, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def save(driver: webdriver.Chrome, path: Path, last: str) -> None:
    """Save the page from its top down to the end of an element."""
    resize(driver, min(driver.execute_script(_BOTTOM, last), MAX_HEIGHT))
    # The page is laid out anew at its next poll.
    time.sleep(3)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
