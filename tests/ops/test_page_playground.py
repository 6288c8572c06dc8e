"""The playground in a real Chromium, over a real gateway and a real server."""

import base64
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import weir
from tests.helpers.gateway import gateway
from tests.integration.generation import rows_left
from tests.integration.harness import Server, running
from tests.ops import task_models
from tests.ops.browser import Browser

webdriver = pytest.importorskip("selenium.webdriver", reason="installed by make test-ops")
pointers = pytest.importorskip("selenium.webdriver.common.actions.pointer_input")

pytestmark = [pytest.mark.ops, pytest.mark.timeout(300)]

# A request that fails is an error of the network in the browser's console.
INVALID = r"/v[12]/models/.* 400 "
_DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1], {type: "image/png"}));
for (const kind of ["dragover", "drop"]) {
    const event = {dataTransfer: data, bubbles: true, cancelable: true};
    document.querySelector(".drop").dispatchEvent(new DragEvent(kind, event));
}
"""

Points = Sequence[tuple[float, float]]
# As a person draws them: not the strokes of the page's samples. Shares of the field.
DIGITS: dict[int, list[Points]] = {
    0: [[(0.5, 0.2), (0.36, 0.3), (0.3, 0.5), (0.36, 0.72), (0.5, 0.8), (0.64, 0.7), (0.7, 0.5),
         (0.63, 0.28), (0.5, 0.2)]],
    1: [[(0.42, 0.3), (0.52, 0.18), (0.5, 0.8)]],
    2: [[(0.3, 0.32), (0.4, 0.2), (0.58, 0.2), (0.66, 0.34), (0.55, 0.52), (0.3, 0.78),
         (0.5, 0.77), (0.72, 0.78)]],
    3: [[(0.32, 0.24), (0.5, 0.18), (0.64, 0.28), (0.6, 0.42), (0.46, 0.48), (0.62, 0.54),
         (0.68, 0.68), (0.54, 0.82), (0.32, 0.76)]],
    4: [[(0.4, 0.2), (0.3, 0.52), (0.72, 0.54)], [(0.6, 0.36), (0.56, 0.84)]],
    5: [[(0.68, 0.2), (0.4, 0.2), (0.36, 0.46), (0.55, 0.44), (0.68, 0.58), (0.62, 0.76),
         (0.34, 0.8)]],
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A page and what is behind it."""

    url: str
    server: Server

    def show(self, browser: Browser, model: str) -> None:
        """Open a model's playground."""
        browser.open(f"{self.url}#/models/{model}")
        browser.find(".try")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Models of every task; LeNet-5 is trained, so that it reads what is drawn."""
    folder = tmp_path_factory.mktemp("playground")
    models, run = folder / "models", folder / "run"
    task_models.publish(models)
    for arguments in (
        ["train", "lenet5", "--data", "digits", "--out", str(run)],
        ["export", str(run), "--to", str(models)],
    ):
        subprocess.run([sys.executable, "-m", "weir", *arguments], check=True, capture_output=True)
    with (
        running(models, folder / "log") as server,
        gateway(server.target) as address,
    ):
        yield Site(f"http://{address}/", server)


def draw(browser: Browser, strokes: Sequence[Points], pointer: str = "mouse") -> None:
    """Draw strokes as a person does: press, move in small steps, lift."""
    field = browser.find(".draw-field")
    side = field.size["width"]
    for stroke in strokes:
        devices = [pointers.PointerInput(pointer, pointer)]
        actions = webdriver.ActionChains(browser.driver, duration=10, devices=devices)
        for at, (x, y) in enumerate(stroke):
            offset = [round((share - 0.5) * side) for share in (x, y)]
            actions.move_to_element_with_offset(field, *offset)
            if at == 0:
                actions.click_and_hold()
        actions.release().perform()


def drop(browser: Browser, content: bytes, name: str = "picture.png") -> None:
    browser.driver.execute_script(_DROP, base64.b64encode(content).decode(), name)


def wait_for_answer(browser: Browser) -> None:
    browser.wait_for_text("Answer in", ".call-line")


def put(browser: Browser, selector: str, text: str) -> None:
    """Paste a text, which may have line breaks, in place of what a field has."""
    browser.driver.execute_script("arguments[0].value = arguments[1]", browser.find(selector), text)


def png(side: int = 40) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("digit", DIGITS)
def test_a_drawn_digit_is_read(browser: Browser, site: Site, digit: int) -> None:
    site.show(browser, "lenet5")

    draw(browser, DIGITS[digit])

    browser.wait_for_text(str(digit), ".top-label")


@pytest.mark.parametrize("pointer", ["touch", "pen"])
def test_finger_and_pen_draw(browser: Browser, site: Site, pointer: str) -> None:
    site.show(browser, "lenet5")

    draw(browser, DIGITS[3], pointer)

    browser.wait_for_text("3", ".top-label")


def test_a_small_digit_in_a_corner_is_read(browser: Browser, site: Site) -> None:
    site.show(browser, "lenet5")

    draw(browser, [[(0.7 + x * 0.3, 0.65 + y * 0.3) for x, y in DIGITS[2][0]]])

    browser.wait_for_text("2", ".top-label")


def test_each_sample_digit_is_read(browser: Browser, site: Site) -> None:
    site.show(browser, "lenet5")

    for digit in range(10):
        browser.click(f'[aria-label="Sample {digit}"]')

        browser.wait_for_text(str(digit), ".top-label")


def test_the_keyboard_draws(browser: Browser, site: Site) -> None:
    site.show(browser, "lenet5")
    field = browser.find(".draw-field")

    field.send_keys(webdriver.Keys.ARROW_UP * 9, " ", webdriver.Keys.ARROW_DOWN * 18, " ")

    browser.wait_for_text("1", ".top-label")


def test_clear_takes_drawing_and_answer_away(browser: Browser, site: Site) -> None:
    site.show(browser, "lenet5")
    draw(browser, DIGITS[2])
    browser.wait_for_text("2", ".top-label")

    browser.click(".draw .button")

    assert not browser.text(".result")
    assert not browser.text(".snippets")
    draw(browser, DIGITS[1])
    browser.wait_for_text("1", ".top-label")


def test_the_newest_drawing_is_shown(browser: Browser, site: Site) -> None:
    site.show(browser, "lenet5")

    # The first answer is held back until the second one has come.
    browser.driver.execute_script("""
        const real = window.fetch;
        let calls = 0;
        window.released = new Promise((resolve) => (window.release = resolve));
        window.fetch = async (path, options) => {
            if (!path.includes(":classify") || calls++ > 0) return real(path, options);
            const answer = await real(path, {...options, signal: undefined});
            await window.released;
            window.wasReleased = true;
            return answer;
        };
    """)
    browser.click('[aria-label="Sample 3"]')
    browser.click('[aria-label="Sample 5"]')
    browser.wait_for_text("5", ".top-label")
    browser.driver.execute_script("window.release()")
    browser.wait(
        lambda: bool(browser.driver.execute_script("return window.wasReleased")), "not released"
    )

    assert browser.text(".top-label") == "5"


def test_a_dropped_picture_has_five_bars(browser: Browser, site: Site) -> None:
    site.show(browser, "lenet5")

    drop(browser, png())

    wait_for_answer(browser)
    rows = browser.all(".class-bars tbody tr")
    with weir.Client(site.server.target) as client:
        expected = client.classify("lenet5", [png()])[0]
    assert [row.text.split() for row in rows] == [
        [each.label, f"{100 * each.score:.1f}", "%"] for each in expected
    ]
    track = browser.find(".class-track").size["width"]
    widths = [bar.size["width"] for bar in browser.all(".class-bar")]
    assert widths == sorted(widths, reverse=True)
    assert max(widths) <= track
    assert browser.find(".preview").is_displayed()
    assert "picture.png" in browser.text('[data-kind="weir"]')


def test_a_chosen_file_is_classified(browser: Browser, site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(png())
    site.show(browser, "lenet5")

    browser.find("#picture").send_keys(str(tmp_path / "mine.png"))

    wait_for_answer(browser)
    assert len(browser.all(".class-bars tbody tr")) == 5
    assert '@"mine.png"' in browser.text('[data-kind="curl"]')


def test_a_broken_file_harms_nothing_else(browser: Browser, site: Site) -> None:
    browser.expected.append(INVALID)
    site.show(browser, "lenet5")
    draw(browser, DIGITS[2])
    browser.wait_for_text("2", ".top-label")

    drop(browser, png()[:60], "broken.png")

    browser.wait_for_text("the PNG is damaged or cut short", '.error[aria-live="assertive"]')
    draw(browser, DIGITS[1])
    browser.wait_for_text("1", ".top-label")
    assert not browser.text(".error")


def test_tokens_have_their_tags(browser: Browser, site: Site) -> None:
    site.show(browser, "tagger")

    put(browser, "#text", "the cat zebra")
    browser.click(".text-form .button")

    wait_for_answer(browser)
    with weir.Client(site.server.target) as client:
        expected = client.tag("tagger", ["the cat zebra"])[0]
    tokens = browser.all(".token")
    assert [token.text.split("\n")[:2] for token in tokens] == [
        [each.text, each.tag] for each in expected
    ]
    titles = [token.get_attribute("title") for token in tokens]
    assert titles[0] == f"{expected[0].tag}: {100 * expected[0].probability:.1f} %"
    assert titles[2].endswith("not in the vocabulary")
    assert [each.text for each in browser.all(".token-text.is-unknown")] == ["zebra"]
    browser.wait_for_text("Not in the model's vocabulary: zebra.", ".unknown-note")
    colours = {token.value_of_css_property("background-color") for token in tokens}
    assert len(colours) == len({each.tag for each in expected})


def test_a_text_is_classified_by_keyboard(browser: Browser, site: Site) -> None:
    site.show(browser, "classifier")

    browser.find("#text").send_keys(
        "cat cat the zebra", webdriver.Keys.CONTROL, webdriver.Keys.ENTER
    )

    browser.wait_for_text("animal", ".top-label")
    assert "50.0 %" in browser.text(".class-bars")
    assert "zebra" in browser.text(".unknown-note")


def test_a_text_that_is_refused_says_why(browser: Browser, site: Site) -> None:
    browser.expected.append(INVALID)
    site.show(browser, "tagger")

    browser.click(".text-form .button")

    browser.wait_for_text("expected", ".error")
    put(browser, "#text", "the cat")
    browser.click(".text-form .button")
    wait_for_answer(browser)
    assert not browser.text(".error")


def test_a_word_streams_and_stops_when_the_reader_leaves(browser: Browser, site: Site) -> None:
    left = rows_left(site.server)
    site.show(browser, "endless")

    put(browser, "#text", "z")
    browser.click(".text-form .button")

    browser.wait(lambda: len(browser.all(".stream.is-running .piece")) >= 5, "no tokens")
    assert not browser.text(".result")
    assert "Running" in browser.text(".call-line")
    browser.go("#/")
    browser.wait(lambda: rows_left(site.server) > left, "the generation was not cancelled")


def test_a_result_has_its_attention(browser: Browser, site: Site) -> None:
    site.show(browser, "speller")

    put(browser, "#text", "abc")
    browser.click(".text-form .button")

    browser.wait_for_text("first token after", ".call-line")
    with weir.Client(site.server.target) as client:
        expected = client.generate("speller", "abc", attention=True).result()
    assert browser.text(".stream") == expected.text
    assert [piece.text for piece in browser.all(".piece")] == list(expected.hypotheses[0].tokens)
    attention = expected.hypotheses[0].attention
    assert attention is not None
    browser.click(".attention summary")
    rows = [row.text.split() for row in browser.all(".attention-table tbody tr")]
    tokens = [*expected.hypotheses[0].tokens, "end"]
    assert [row[:2] for row in rows] == [
        [token, expected.source[int(np.argmax(weights))]]
        for token, weights in zip(tokens, attention, strict=True)
    ]
    assert len(browser.all(".attention-cell")) == np.count_nonzero(attention >= 0.01)


@pytest.mark.parametrize(
    ("search", "fields", "given"),
    [
        ("beam", {"width": "3", "count": "2"}, weir.Beam(3)),
        ("sample", {"temperature": "0.7", "seed": "5", "count": "2"}, weir.Sample(0.7, seed=5)),
    ],
    ids=["beam", "sample"],
)
def test_search_is_chosen(
    browser: Browser, site: Site, search: str, fields: dict[str, str], given: Any
) -> None:
    site.show(browser, "speller")

    put(browser, "#text", "abcd")
    browser.click(f'#search option[value="{search}"]')
    for name, value in fields.items():
        browser.fill(f"#{name}", value)
    browser.click(".text-form .button")

    wait_for_answer(browser)
    with weir.Client(site.server.target) as client:
        expected = client.generate("speller", "abcd", search=given, n_best=2).result()
    rows = browser.all(".hypotheses tbody tr")
    assert [row.find_elements("css selector", "td")[1].text for row in rows] == [
        each.text for each in expected.hypotheses
    ]


def test_a_pasted_series_is_forecast_with_dates(browser: Browser, site: Site) -> None:
    months = [f"{1950 + at // 12}-{at % 12 + 1:02d}" for at in range(30)]
    values = [100 + 3 * at for at in range(30)]
    table = "\n".join(f"{month};{value},5" for month, value in zip(months, values, strict=True))
    site.show(browser, "seasonal")

    put(browser, "#series", f"Month;Passengers\n{table}")
    browser.click(".text-form .button")

    wait_for_answer(browser)
    rows = [row.text.split() for row in browser.all(".values tbody tr")]
    ahead = [f"{1950 + at // 12}-{at % 12 + 1:02d}" for at in range(30, 42)]
    assert [row[0] for row in rows] == ahead
    assert [float(row[1]) for row in rows] == [value + 0.5 for value in values[-12:]]
    lower, upper = (np.array([float(row[at]) for row in rows]) for at in (2, 3))
    np.testing.assert_allclose(lower, 0.9 * (np.array(values[-12:]) + 0.5), rtol=1e-5)
    np.testing.assert_allclose(upper, 1.1 * (np.array(values[-12:]) + 0.5), rtol=1e-5)
    assert len(browser.all(".forecast-dot")) == 12
    assert browser.all(".forecast-band")
    assert "80 % interval" in browser.text(".forecast-legend")
    ticks = [tick.text for tick in browser.all(".forecast-tick")]
    assert {"1950-01", "1953-06"} <= set(ticks)


def test_a_series_of_two_columns_has_its_horizon(browser: Browser, site: Site) -> None:
    site.show(browser, "forecaster")

    put(browser, "#series", "price,sales\n9,1\n8,2\n7,3.5")
    browser.fill("#horizon", "1")
    browser.click(".text-form .button")

    wait_for_answer(browser)
    assert [row.text.split() for row in browser.all(".values tbody tr")] == [["+1", "10.5"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("passengers\n1\ntwo", "line 3, passengers: expected a number, got “two”"),
        ("1\n2\n3", "expected 24 values or more, got 3"),
        ("", "expected a series, got no text"),
    ],
    ids=["no number", "too few", "no text"],
)
def test_a_series_that_is_refused_says_why(
    browser: Browser, site: Site, text: str, message: str
) -> None:
    browser.expected.append(INVALID)
    site.show(browser, "seasonal")

    put(browser, "#series", text)
    browser.click(".text-form .button")

    browser.wait_for_text(message, ".error")
    assert browser.find("#series").get_attribute("value") == text


def test_tensors_are_edited_and_sent(browser: Browser, site: Site) -> None:
    site.show(browser, "float32")
    browser.wait(
        lambda: "FP32" in browser.find("#request").get_attribute("value"), "no first request"
    )
    request = browser.find("#request").get_attribute("value")
    browser.click(".text-form .button")
    browser.wait_for_text("[[0, 0]]", ".tensor-values")

    put(browser, "#request", request.replace("[1, 2]", "[2, 2]").replace("[0, 0]", "[1, 2, 3, 4]"))
    browser.click(".text-form .button")

    browser.wait_for_text("[[1, 2],\n [3, 4]]", ".tensor-values")
    assert "FP32 [2, 2]" in browser.text(".outputs")


def test_integers_are_sent_with_all_their_digits(browser: Browser, site: Site) -> None:
    site.show(browser, "int64")
    value = 2**53 + 1
    tensor = f'{{"name":"x","datatype":"INT64","shape":[1,2],"data":[{value},0]}}'
    browser.driver.execute_script("""
        const real = window.fetch;
        window.fetch = async (path, options) => {
            const answer = await real(path, options);
            if (path.endsWith("/infer")) window.answer = await answer.clone().text();
            return answer;
        };
    """)

    put(browser, "#request", f'{{"inputs":[{tensor}]}}')
    browser.click(".text-form .button")

    browser.wait_for_text("shown rounded", ".result")
    assert str(value) in browser.driver.execute_script("return window.answer")
    assert not browser.text(".snippets")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0, 0]", "[0, 0", "The request is not JSON"),
        ("[0, 0]", "[0]", "x"),
        ("[0, 0]", "[0, null]", "x"),
        ('"inputs": [', '"inputs": [null, ', "inputs"),
    ],
    ids=["no JSON", "too few values", "null for a value", "null for a tensor"],
)
def test_tensors_that_are_refused_say_why(
    browser: Browser, site: Site, old: str, new: str, message: str
) -> None:
    browser.expected.append(INVALID)
    site.show(browser, "float32")
    browser.wait(
        lambda: "FP32" in browser.find("#request").get_attribute("value"), "no first request"
    )

    put(browser, "#request", browser.find("#request").get_attribute("value").replace(old, new))
    browser.click(".text-form .button")

    browser.wait_for_text(message, ".error")


def test_calls_are_copied(browser: Browser, site: Site) -> None:
    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
    site.show(browser, "tagger")
    put(browser, "#text", "it's the cat")
    browser.click(".text-form .button")
    wait_for_answer(browser)

    for kind, title in {"curl": "curl", "python": "Python", "weir": "weir"}.items():
        browser.click(f'[aria-label="Copy {title}"]')
        browser.wait_for_text(f"{title} copied", '.panel-head [role="status"]')

        copied = browser.driver.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0])"
        )
        assert copied == browser.driver.execute_script(
            f"""return document.querySelector('[data-kind="{kind}"]').textContent"""
        )
        assert "it" in copied


ANSWERS = {
    "lenet5": '[aria-label="Sample 2"]',
    "tagger": ".text-form .button",
    "classifier": ".text-form .button",
    "speller": ".text-form .button",
    "seasonal": ".text-form .button",
    "float32": ".text-form .button",
}


@pytest.mark.parametrize("model", ANSWERS)
def test_each_task_is_accessible(browser: Browser, site: Site, model: str) -> None:
    site.show(browser, model)
    if model == "seasonal":
        put(browser, "#series", "\n".join(map(str, range(30))))
    elif model == "float32":
        browser.wait(lambda: bool(browser.find("#request").get_attribute("value")), "no request")
    elif model != "lenet5":
        put(browser, "#text", "the cat zebra")

    browser.require_accessible()
    browser.click(ANSWERS[model])
    wait_for_answer(browser)

    browser.require_accessible()
