import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from _pytest.capture import CaptureResult
from PIL import Image

from weir.server.telemetry import log

FORGED = (
    "harmless\n2026-01-01 00:00:00,000 ERROR weir.server.app: all is lost\r\x1b[2K\x85\u2028more"
)


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
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")

    logger.info("event level=%s message=%s", "high", "hello")

    event = json.loads(written(capfd).err)
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


class Pipe:
    """A pipe in the place of stderr, full to the brim, until a test reads it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.filling = 0
        with suppress(BlockingIOError):
            while True:
                self.filling += os.write(self.writer, b"." * 4096)
        os.set_blocking(self.writer, True)

    def configure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not in a fixture: pytest sets stderr anew for the test itself."""
        with os.fdopen(self.writer, "w", closefd=False) as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            log.configure("json", "info")

    def read_lines(self, count: int) -> list[str]:
        while self.filling:
            self.filling -= len(os.read(self.reader, self.filling))
        with os.fdopen(self.reader, closefd=False) as reader:
            return [reader.readline() for _ in range(count)]

    def close(self) -> None:
        # What is left fails at once: nothing may write to this number when it is another file's.
        os.close(self.reader)
        logging.getLogger().handlers[0].flush()
        os.close(self.writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_an_unread_pipe_delays_no_logging_thread(
    logger: logging.Logger, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.configure(monkeypatch)

    for number in range(5000):
        logger.info("event number=%d", number)

    # The thread has one in its hands, or not yet.
    assert log.dropped() in (5000 - 4096, 5000 - 4097)
    first, second = pipe.read_lines(2)
    assert json.loads(first)["message"] == "event number=0"
    assert json.loads(second)["message"] == "event number=1"


def test_requests_leave_room_for_rarer_events(
    logger: logging.Logger, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.configure(monkeypatch)
    requests = logging.getLogger(log.REQUESTS)

    for _ in range(4096):
        requests.info("request")
    lost = log.dropped()
    logger.warning("model failed")

    assert lost in (4096 - 2049, 4096 - 2050)
    assert log.dropped() == lost
    assert "model failed" in pipe.read_lines(4096 - lost + 1)[-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_costs_its_lines_and_nothing_else(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        log.configure("text", "info")

        logger.info("event")
        logger.info("event")
        logging.getLogger().handlers[0].flush()

    assert log.dropped() == 2


def test_without_stderr_nothing_is_written_anywhere(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log.configure("text", "info")

    logger.info("event")

    assert log.dropped() == 0


def test_a_request_has_its_fields_in_json(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "warning")

    logging.getLogger(log.REQUESTS).info("request", extra={"fields": {"id": FORGED, "rows": 2}})

    (line, end) = written(capfd).err.split("\n")
    event = json.loads(line)
    assert (event["message"], event["id"], event["rows"], end) == ("request", FORGED, 2, "")


def test_a_request_cannot_write_fields_of_its_own_into_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    log.configure("text", "info")
    fields = {"id": "x status=OK", "name": FORGED, "rows": 2, "peer": "ipv6:[::1]:50"}

    logging.getLogger(log.REQUESTS).info("request", extra={"fields": fields})

    (line,) = written(capfd).err.splitlines()
    assert ' weir.requests: request id="x status=OK" name="harmless' in line
    assert line.endswith(" rows=2 peer=ipv6:[::1]:50")
