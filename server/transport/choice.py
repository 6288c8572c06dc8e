"""Which transport carries the calls: the fast one, where it works."""

import logging

from weir.server.config import Settings
from weir.server.errors import ConfigError
from weir.server.transport import completion_queue, grpc_server
from weir.server.transport.base import Handlers, Limits, Transport

logger = logging.getLogger(__name__)


def open_transport(settings: Settings, handlers: Handlers) -> Transport:
    """What listens as the settings ask for; not started.

    Raises:
        ConfigError: the transport that is asked for cannot be used with the installed grpcio.
        PortUnavailable: the address cannot be bound.
    """
    address = f"{settings.host}:{settings.port}"
    limits = Limits(
        message_bytes=settings.max_message_bytes,
        concurrent_streams=settings.max_concurrent_streams,
    )
    problem = None if settings.transport == "public" else completion_queue.problem()
    if problem is not None and settings.transport == "completion-queue":
        raise ConfigError(f"transport completion-queue: {problem}")
    if settings.transport == "public" or problem is not None:
        logger.info("transport chosen transport=public reason=%s", problem or "asked for")
        return grpc_server.PublicTransport(address, handlers, limits)
    logger.info("transport chosen transport=completion-queue")
    return completion_queue.CompletionQueueTransport(address, handlers, limits)
