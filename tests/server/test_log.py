import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from _pytest.capture import CaptureResult
from PIL import Image

from server import log

FORGED = "harmless\n2026-01-01 00:00:00,000 ERROR server.app: all is lost\r\x1b[2K\x85\u2028more"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    """The process's own handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def logger() -> logging.Logger:
    return logging.getLogger("server.test")


def written(capfd: pytest.CaptureFixture[str]) -> CaptureResult[str]:
    """What the log's thread has written, once it has."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    return capfd.readouterr()


def test_json_is_an_object_a_line(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")

    logger.info("model ready model=%s seconds=%.2f", "lenet5", 0.5)
    logger.warning("model failed model=%s", "ä")

    first, second = (json.loads(line) for line in written(capfd).err.split("\n")[:-1])
    assert first.pop("time")[-1] == "Z"
    assert first == {
        "level": "info",
        "logger": "server.test",
        "message": "model ready model=lenet5 seconds=0.50",
        "model": "lenet5",
        "seconds": 0.5,
    }
    assert second["message"] == "model failed model=ä" and second["model"] == "ä"


def test_json_members_of_an_event_hide_none_of_the_line(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")

    logger.info("event level=%s message=%s", "high", "hello")

    event = json.loads(capsys.readouterr().err)
    assert (event["level"], event["message"]) == ("info", "event level=high message=hello")


def test_json_time_is_utc_with_milliseconds(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")
    record = logger.makeRecord("server.test", logging.INFO, "", 0, "event", (), None)
    record.created, record.msecs = 1_700_000_000.0, 7.0

    logger.handle(record)

    assert json.loads(written(capfd).err)["time"] == "2023-11-14T22:13:20.007Z"


def test_json_newlines_cannot_forge_a_second_line(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")

    logger.info("event reason=%s", FORGED)

    (line, end) = written(capfd).err.split("\n")
    assert end == ""
    assert json.loads(line)["message"] == f"event reason={FORGED}"


def test_text_newlines_cannot_forge_a_second_line(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("text", "info")

    logger.info("event reason=%s", FORGED)

    (line,) = written(capfd).err.splitlines()
    assert "all is lost" in line
    assert "\x1b" not in line


def test_text_is_time_level_logger_and_message(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("text", "info")

    logger.warning("model failed model=%s reason=%s", "ä", "it's C:\\broken")

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING server\.test: "
        r"model failed model=ä reason=it's C:\\broken\n",
        written(capfd).err,
    )


def test_json_traceback_is_one_string(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")

    try:
        raise ValueError("two\nlines")  # noqa: TRY301
    except ValueError:
        logger.exception("internal error")

    (line,) = written(capfd).err.splitlines()
    event = json.loads(line)
    assert event["level"] == "error"
    assert event["traceback"].startswith("Traceback")
    assert event["traceback"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_broken_text_is_still_a_line(
    log_format: str, logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    """File names that are no UTF-8 come as surrogates."""
    log.configure(log_format, "info")

    logger.info("event name=%s", "bad\udcff")

    captured = written(capfd).err
    assert captured.count("\n") == 1
    assert captured.encode("utf-8", "backslashreplace")
    assert "udcff" in ascii(captured)


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
    ids=["debug", "info", "warning", "error"],
)
def test_level_is_the_least_that_is_logged(
    level: str, expected: int, logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("text", level)

    for write in (logger.debug, logger.info, logger.warning, logger.error):
        write("event")

    assert len(written(capfd).err.splitlines()) == expected


def test_configuring_twice_does_not_double_the_lines(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")
    log.configure("text", "info")

    logger.info("event")

    captured = written(capfd)
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_what_a_picture_makes_pillow_warn_of_is_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    broken_exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=broken_exif)
    log.configure("text", "info")

    Image.open(file).getexif()

    assert written(capfd).err == ""
