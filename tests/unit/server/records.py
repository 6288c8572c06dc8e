"""The record of a request that has ended."""

from typing import Any

import grpc

from weir.server.telemetry.request_record import BatchRecord, RequestRecord, TraceContext

PARENT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", is_sampled=True)
BEGAN_NS = 1_700_000_000_000_000_000


def ended(**own: Any) -> RequestRecord:
    """One row that waited 10 ms, ran for 20 ms with two others, and was answered after 35 ms."""
    batch = BatchRecord(3, cut_s=100.010, run_s=100.011, ran_s=100.031, key="00000000000000aa")
    values: dict[str, Any] = {
        "method": "/inference.GRPCInferenceService/ModelInfer",
        "peer": "ipv4:127.0.0.1:50000",
        "parent": PARENT,
        "is_logged": True,
        "is_traced": True,
        "began_ns": BEGAN_NS,
        "began_s": 100.0,
        "request_bytes": 300,
        "response_bytes": 40,
        "request_id": "seven",
        "model": "lenet5",
        "version": "2",
        "rows": 1,
        "arrived_s": 100.0,
        "queued_s": 100.0,
        "batch": batch,
        "code": grpc.StatusCode.OK,
        "ended_s": 100.035,
        **own,
    }
    return RequestRecord(**values)
