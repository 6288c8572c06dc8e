import logging

import grpc
import pytest

from tests.unit.server.records import PARENT, ended
from weir.server.log import REQUESTS
from weir.server.telemetry.access_log import AccessLog, Rate, fields_of


def test_a_line_says_what_it_was_how_it_ended_and_where_its_time_went() -> None:
    assert fields_of(ended(), PARENT) == {
        "method": "/inference.GRPCInferenceService/ModelInfer",
        "model": "lenet5",
        "version": "2",
        "status": "OK",
        "id": "seven",
        "rows": 1,
        "length": 0,
        "total_s": 0.035,
        "queue_s": 0.01,
        "compute_s": 0.02,
        "batch_rows": 3,
        "request_bytes": 300,
        "response_bytes": 40,
        "peer": "ipv4:127.0.0.1:50000",
        "trace_id": PARENT.trace_id,
        "span_id": PARENT.span_id,
    }


def test_an_encoder_decoder_tells_of_its_first_token_and_its_steps() -> None:
    fields = fields_of(ended(first_token_s=100.033, steps=7), None)

    assert (fields["first_token_s"], fields["steps"]) == (0.033, 7)


def test_what_is_not_known_is_left_out() -> None:
    refused = ended(
        queued_s=None, batch=None, request_id="", model="", version="", rows=0,
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    )  # fmt: skip

    assert fields_of(refused, None) == {
        "method": "/inference.GRPCInferenceService/ModelInfer",
        "status": "RESOURCE_EXHAUSTED",
        "rows": 0,
        "length": 0,
        "total_s": 0.035,
        "request_bytes": 300,
        "response_bytes": 40,
        "peer": "ipv4:127.0.0.1:50000",
    }


def test_a_request_that_never_ran_has_waited_until_it_ended() -> None:
    fields = fields_of(ended(batch=None, code=grpc.StatusCode.DEADLINE_EXCEEDED), None)

    assert fields["queue_s"] == fields["total_s"] == 0.035


def test_so_many_in_a_second_and_no_more() -> None:
    rate = Rate(2)

    assert [rate.allows(now) for now in (5.0, 5.1, 5.9, 6.0, 6.5, 6.6)] == [
        True, True, False, True, True, False,
    ]  # fmt: skip


def test_a_flood_of_refusals_does_not_crowd_out_the_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = AccessLog()
    refused = ended(code=grpc.StatusCode.RESOURCE_EXHAUSTED)

    with caplog.at_level(logging.INFO, REQUESTS):
        written = [log.write(refused, None) for _ in range(1100)]
        is_written = log.write(ended(), None)

    assert (written.count(True), written.count(False)) == (1000, 100)
    assert is_written
    assert len(caplog.records) == 1001
