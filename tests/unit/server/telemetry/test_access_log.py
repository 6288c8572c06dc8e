import logging

import grpc
import pytest

from tests.unit.server.records import PARENT, ended
from weir.server.telemetry.access_log import AccessLog, RateLimit, fields_of
from weir.server.telemetry.log import REQUESTS


def test_line_has_request_status_and_times() -> None:
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


def test_line_of_an_encoder_decoder_has_first_token_and_steps() -> None:
    fields = fields_of(ended(first_token_s=100.033, steps=7), None)

    assert (fields["first_token_s"], fields["steps"]) == (0.033, 7)


def test_unknown_fields_are_left_out() -> None:
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


def test_request_that_never_ran_waited_until_it_ended() -> None:
    fields = fields_of(ended(batch=None, code=grpc.StatusCode.DEADLINE_EXCEEDED), None)

    assert fields["queue_s"] == fields["total_s"] == 0.035


def test_limit_allows_its_number_in_each_second() -> None:
    limit = RateLimit(2)

    assert [limit.allows(now) for now in (5.0, 5.1, 5.9, 6.0, 6.5, 6.6)] == [
        True, True, False, True, True, False,
    ]  # fmt: skip


def test_failed_requests_do_not_crowd_out_successful_ones(
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
