import pytest

from tests.unit.server.records import ended
from weir.server.telemetry.request_record import BatchRecord, RequestRecord
from weir.server.telemetry.stations import Station, stations


def told(record: RequestRecord) -> list[str]:
    """Each station as `name begin-end` in milliseconds, inner ones after a dot."""

    def lines(station: Station, prefix: str = "") -> list[str]:
        begin_ms, end_ms = (round((each - 100) * 1000) for each in (station.start_s, station.end_s))
        own = f"{prefix}{station.name} {begin_ms}-{end_ms}"
        return [own, *(line for inner in station.inner for line in lines(inner, "."))]

    return [line for station in stations(record) for line in lines(station)]


def test_a_request_waits_and_runs_in_a_batch() -> None:
    assert told(ended()) == ["queue 0-10", "batch 10-35", ".compute 11-31"]


def test_batch_mates_share_a_key_and_the_rows() -> None:
    (_, batch) = stations(ended())

    assert batch.attributes == {"weir.batch": "00000000000000aa", "weir.batch_rows": 3}
    assert BatchRecord(1, 0.0).key != BatchRecord(1, 0.0).key


def test_a_picture_is_prepared_first() -> None:
    assert told(ended(queued_s=100.004))[:2] == ["prepare 0-4", "queue 4-10"]


def test_an_encoder_decoder_makes_steps_after_its_encoder_ran() -> None:
    record = ended(first_token_s=100.033, steps=7)

    assert told(record) == ["queue 0-10", "batch 10-35", ".compute 11-31", ".decode 31-35"]
    (_, batch) = stations(record)
    assert batch.inner[1].attributes == {"weir.steps": 7}
    assert batch.inner[1].events == {"first token": 100.033}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"queued_s": None, "batch": None}, []),
        ({"batch": None}, ["queue 0-35"]),
        ({"batch": BatchRecord(3, 100.010)}, ["queue 0-10", "batch 10-35"]),
        (
            {"batch": BatchRecord(3, 100.010, 100.011)},
            ["queue 0-10", "batch 10-35", ".compute 11-35"],
        ),
        # Told of its deadline while its batch ran on.
        ({"ended_s": 100.020}, ["queue 0-10", "batch 10-20", ".compute 11-20"]),
        ({"ended_s": 100.005}, ["queue 0-5"]),
    ],
    ids=["refused", "left the queue", "not joined", "failed in its run", "late in its run", "late"],
)
def test_a_request_that_fails_has_the_stations_it_reached(
    own: dict[str, object], expected: list[str]
) -> None:
    assert told(ended(**own)) == expected
