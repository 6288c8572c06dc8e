"""A version that no request finds any longer: it finishes what it holds, and then lets go.

Thread: `weir-retire-<model>-<version>`, for as long as that takes. The session is freed by the last who knows it, which
is after its last run: a session that was freed under a run would take the process down.
"""

import logging
import threading
from collections.abc import Callable

from weir.server.repository.registry import Models

logger = logging.getLogger(__name__)

_SLOWLY_S = 60.0


def retire(name: str, number: int, models: Models, left: Callable[[], None]) -> None:
    """Close the queues of a version in the background.

    Args:
        name: of the model.
        number: of the version.
        models: what served it.
        left: called when the last of its requests is answered.
    """
    threading.Thread(
        target=_let_go,
        args=(name, number, models, left),
        name=f"weir-retire-{name}-{number}",
        daemon=True,
    ).start()


def _let_go(name: str, number: int, models: Models, left: Callable[[], None]) -> None:
    for model in models.values():
        model.scheduler.close()
    for model in models.values():
        while not model.scheduler.join(_SLOWLY_S):
            logger.warning("model still has requests model=%s version=%s", name, number)
    left()
