import pytest

from tests.unit.server.records import ended
from weir.server.telemetry.request_record import BatchRecord, RequestRecord
from weir.server.telemetry.tracing import Phase, phases


def times_of(record: RequestRecord) -> list[str]:
    """Each phase as `name begin-end` in milliseconds; inner phases after a dot."""

    def lines(phase: Phase, prefix: str = "") -> list[str]:
        begin_ms, end_ms = (round((each - 100) * 1000) for each in (phase.start_s, phase.end_s))
        own = f"{prefix}{phase.name} {begin_ms}-{end_ms}"
        return [own, *(line for inner in phase.inner for line in lines(inner, "."))]

    return [line for phase in phases(record) for line in lines(phase)]


def test_request_waits_and_runs_in_a_batch() -> None:
    assert times_of(ended()) == ["queue 0-10", "batch 10-35", ".compute 11-31"]


def test_requests_of_a_batch_share_key_and_rows() -> None:
    (_, batch) = phases(ended())

    assert batch.attributes == {"weir.batch": "00000000000000aa", "weir.batch_rows": 3}
    assert BatchRecord(1, 0.0).key != BatchRecord(1, 0.0).key


def test_image_is_preprocessed_first() -> None:
    assert times_of(ended(queued_s=100.004))[:2] == ["preprocess 0-4", "queue 4-10"]


def test_encoder_decoder_decodes_after_its_encoder_ran() -> None:
    record = ended(first_token_s=100.033, steps=7)

    assert times_of(record) == ["queue 0-10", "batch 10-35", ".compute 11-31", ".decode 31-35"]
    (_, batch) = phases(record)
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
        # Its deadline passed while its batch ran on.
        ({"ended_s": 100.020}, ["queue 0-10", "batch 10-20", ".compute 11-20"]),
        ({"ended_s": 100.005}, ["queue 0-5"]),
    ],
    ids=["refused", "left the queue", "not joined", "failed in its run", "late in its run", "late"],
)
def test_failed_request_has_the_phases_it_reached(
    own: dict[str, object], expected: list[str]
) -> None:
    assert times_of(ended(**own)) == expected
