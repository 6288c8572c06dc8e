"""The page's networks in a real Chromium: layers, kernels, and the feature maps of a picture."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import image_files, image_networks, onnx_models, pairs
from tests.helpers.gateway import gateway
from tests.integration.harness import running
from tests.ops.browser import Browser
from weir.bundle import golden, writer

pytestmark = [pytest.mark.ops, pytest.mark.timeout(180)]

# A request that fails is an error of the network in the browser's console.
INVALID = r"/feature-maps .* 400 "
UNIMPLEMENTED = r"/network .* 501 "
_DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1], {type: "image/png"}));
const zone = document.querySelector("#panel-network .drop");
for (const kind of ["dragover", "drop"]) {
    const event = {dataTransfer: data, bubbles: true, cancelable: true};
    zone.dispatchEvent(new DragEvent(kind, event));
}
"""
_PIXELS = """
return [...document.querySelectorAll(arguments[0])].map((canvas) => [canvas.height, canvas.width,
    [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]]);
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks") / "models"
    image_networks.write_lenet5(root, "lenet5")
    onnx_models.write_plain(root, "plain", onnx_models.dense(4))
    files = {
        "encoder.onnx": pairs.encoder(),
        "decoder.onnx": pairs.decoder(),
        "golden.npz": golden.encode(pairs.WHOLE_GOLDEN),
        "golden.encoder.npz": golden.encode(pairs.ENCODER_GOLDEN),
        "golden.decoder.npz": golden.encode(pairs.DECODER_GOLDEN),
    }
    writer.write(files, pairs.CONTRACT, root, "pair", None)
    return root


@pytest.fixture(scope="module")
def target(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(models, tmp_path_factory.mktemp("log") / "log") as server:
        yield server.target


@pytest.fixture(scope="module")
def url(target: str, models: Path) -> Iterator[str]:
    with gateway(target, "--models", str(models)) as address:
        yield f"http://{address}/"


def open_network(browser: Browser, url: str, model: str) -> None:
    browser.open(f"{url}#/models/{model}")
    browser.click("#tab-network")


def numbers(browser: Browser, selector: str) -> list[int]:
    """The numbers of a table's cells."""
    cells = [cell.get_attribute("textContent") for cell in browser.all(selector)]
    return [int(re.sub(r"\D", "", cell)) for cell in cells]


def pixels(browser: Browser, selector: str) -> list[np.ndarray]:
    """Canvases as arrays (height, width, 4)."""
    found = browser.driver.execute_script(_PIXELS, selector)
    return [np.array(data).reshape(height, width, 4) for height, width, data in found]


def drop(browser: Browser, data: bytes, name: str) -> None:
    """Drop a file as a user does."""
    browser.find("#panel-network .drop")
    browser.driver.execute_script(_DROP, base64.b64encode(data).decode(), name)


def test_totals_are_the_sums_of_the_rows(browser: Browser, url: str) -> None:
    open_network(browser, url, "lenet5")

    browser.find(".layers tfoot")
    for head, total in (("Parameters", 61_706), ("Connections", 423_038)):
        rows = numbers(browser, f'.layers tbody td[data-head="{head}"]')
        assert len(rows) == 5
        assert numbers(browser, f'.layers tfoot td[data-head="{head}"]') == [sum(rows)] == [total]
    assert "2 MaxPool" in browser.text(".network")
    assert "61,706 parameters and 429,342 connections" in browser.text(".network")


def test_bars_have_a_log_scale(browser: Browser, url: str) -> None:
    open_network(browser, url, "lenet5")

    browser.find(".layers .bar")
    for kind, head in (("is-parameters", "Parameters"), ("is-connections", "Connections")):
        counts = np.array(numbers(browser, f'.layers tbody td[data-head="{head}"]'))
        widths = [
            float(bar.get_attribute("style").removeprefix("width:").strip(" %;"))
            for bar in browser.all(f".layers .bar.{kind}")
        ]
        np.testing.assert_allclose(widths, 100 * np.log(counts + 1) / np.log(241_601), rtol=1e-3)


def test_kernels_are_drawn_in_two_colours_around_zero(browser: Browser, url: str) -> None:
    weights = image_networks.lenet5().network.get_parameter("c1.weight").detach().numpy()[:, 0]
    open_network(browser, url, "lenet5")

    browser.wait(lambda: len(browser.all(".pixel-grid canvas")) == 6, "no six kernels")

    for scheme, below, above in (
        ("light", (0x0B, 0x5F, 0xA5), (0xB0, 0x4A, 0x00)),
        ("dark", (0x74, 0xB9, 0xFF), (0xFF, 0xAB, 0x66)),
    ):
        browser.emulate(scheme=scheme)

        def drawn() -> np.ndarray:
            return np.array(pixels(browser, ".pixel-grid canvas"))

        # The strongest weight has the colour itself, and weights of the same sign mix it in.
        at = np.unravel_index(np.abs(weights).argmax(), weights.shape)
        end = above if weights[at] > 0 else below
        browser.wait(lambda: tuple(drawn()[at][:3]) == end, f"{scheme}: not redrawn")  # noqa: B023
        found = drawn()
        is_blue = found[..., 2] > found[..., 0]
        clear = np.abs(weights) > 0.1 * np.abs(weights).max()
        np.testing.assert_array_equal(is_blue[clear], weights[clear] < 0)
    low = f"{weights.min():.2f}".replace("-", "\N{MINUS SIGN}")
    assert low in browser.find(".pixel-grid[role=img]").get_attribute("aria-label")


def test_a_dropped_picture_shows_its_maps(browser: Browser, url: str) -> None:
    digit = np.zeros((28, 28), np.uint8)
    digit[5:22, 12:15] = 255
    open_network(browser, url, "lenet5")

    drop(browser, image_files.encode_pixels(digit), "one.png")

    browser.wait_for_text("Maps of one.png after 4 blocks.")
    picture, *maps = pixels(browser, ".blocks canvas")
    np.testing.assert_array_equal(picture[..., :3], np.repeat(digit[..., np.newaxis], 3, 2))
    shapes = [(28, 28)] * 6 + [(14, 14)] * 6 + [(10, 10)] * 16 + [(5, 5)] * 16
    assert [each.shape[:2] for each in maps] == shapes
    assert np.ptp(maps[0][..., 0]) == 255, "a map is drawn from black to white"
    captions = [each.text for each in browser.all(".blocks figcaption")]
    assert captions[1].startswith(
        "1. network.c1 · Relu 6 maps of 28 \N{MULTIPLICATION SIGN} 28, from "
    )
    assert captions[2].startswith("2. MaxPool 6 maps of 14 \N{MULTIPLICATION SIGN} 14, from ")


def test_a_chosen_file_shows_its_maps(browser: Browser, url: str, tmp_path: Path) -> None:
    file = tmp_path / "noise.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    file.write_bytes(image_files.encode_pixels(noise, "JPEG"))
    open_network(browser, url, "lenet5")

    browser.find("#maps-file").send_keys(str(file))

    browser.wait_for_text("Maps of noise.jpg after 4 blocks.")


def test_a_broken_picture_is_an_error_in_words(browser: Browser, url: str) -> None:
    browser.expected = [INVALID]
    open_network(browser, url, "lenet5")

    drop(browser, image_files.PNG[:60], "broken.png")

    browser.wait_for_text("the PNG is damaged or cut short", ".network [role=alert]")
    drop(browser, image_files.PNG, "whole.png")
    browser.wait_for_text("Maps of whole.png after 4 blocks.")
    assert not browser.text(".network [role=alert]")


def test_an_encoder_decoder_has_two_tables_and_no_kernels(browser: Browser, url: str) -> None:
    open_network(browser, url, "pair")

    browser.wait_for_text("Layers of the encoder")
    browser.wait_for_text("Layers of the decoder")
    browser.wait(lambda: "kernels" not in browser.text(".network").lower(), "a panel of kernels")
    assert not browser.all("#panel-network .drop")


def test_a_plain_model_is_shown_without_maps(browser: Browser, url: str) -> None:
    open_network(browser, url, "plain")

    browser.find(".layers tbody tr")
    assert not browser.all("#panel-network .drop")


def test_without_files_the_page_says_how_to_give_them(browser: Browser, target: str) -> None:
    browser.expected = [UNIMPLEMENTED]
    with gateway(target) as address:
        open_network(browser, f"http://{address}/", "lenet5")

        browser.wait_for_text("start it with --models PATH")
        browser.require_accessible()
        browser.open("about:blank")


def test_the_network_is_accessible(browser: Browser, url: str) -> None:
    open_network(browser, url, "lenet5")
    drop(browser, image_files.PNG, "whole.png")
    browser.wait_for_text("Maps of whole.png")
    browser.click(".numbers summary")
    browser.wait_for_text("Lowest")

    browser.require_accessible()


def test_everything_is_reached_by_the_keyboard(browser: Browser, url: str) -> None:
    open_network(browser, url, "lenet5")
    browser.find(".numbers summary")
    browser.find("#maps-file")
    browser.find("#tab-network").click()

    reached = []
    for _ in range(2):
        browser.driver.switch_to.active_element.send_keys("\ue004")
        reached.append(browser.driver.switch_to.active_element)

    assert [each.tag_name for each in reached] == ["summary", "input"]
