"""Default deny: every method of the descriptor pool has a kind."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import weir.protocol
from weir.server.access.method_kinds import METHOD_KINDS


def services() -> Iterator[ServiceDescriptor]:
    """Every service of Weir's protocol files, and of the standard ones that it serves."""
    generated: list[Any] = [
        importlib.import_module(f"weir.protocol.{module.name}")
        for module in pkgutil.iter_modules(weir.protocol.__path__)
        if module.name.endswith("_pb2")
    ]
    for file in (*generated, health_pb2, reflection_pb2):
        yield from file.DESCRIPTOR.services_by_name.values()


def test_every_method_has_a_kind_and_no_other_has_one() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for service in services()
        for method in service.methods
    }

    assert len(methods) > 20
    assert set(METHOD_KINDS) == methods


def test_only_health_checks_are_of_the_kind_that_a_flag_opens() -> None:
    opened = {
        method.rpartition("/")[2] for method, kind in METHOD_KINDS.items() if kind == "health"
    }

    assert opened == {"Check", "Watch", "ServerLive", "ServerReady"}
