"""How large a model's batches may be: the operator's word first, the bundle's or a `config.pbtxt`'s then."""

from weir.bundle.contract import Batching, Contract
from weir.server.config import ModelSettings
from weir.server.scheduling.batching import BatchPolicy

_LINGER_SHARE = 0.02
# Measured on a tagger of 256 units: from 1 to 2 the throughput is the same, below and above it is less.
# A GPU computes several rows in the time of one, so there full batches come first; how many is a guess.
_STEP_ROWS = {"cpu": 1.0, "cuda": 64.0}


def max_rows(settings: ModelSettings, contract: Contract | None) -> int:
    """The most rows of a batch, and of a request."""
    return settings.max_batch_rows or _batching(contract).max_rows


def policy_of(
    settings: ModelSettings, contract: Contract | None, *, rows: int, provider: str
) -> BatchPolicy:
    """When a model's batches are cut, of at most so many rows."""
    own = _batching(contract)
    delay_s = settings.max_queue_delay_s
    return BatchPolicy(
        rows,
        own.max_queue_delay_s if delay_s is None else delay_s,
        linger_share=_LINGER_SHARE,
        max_tokens=settings.max_batch_tokens or own.max_tokens,
        step_rows=_STEP_ROWS[provider],
    )


def _batching(contract: Contract | None) -> Batching:
    return contract.batching if contract else Batching()
