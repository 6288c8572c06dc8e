"""Decode time: how long rows are decoded, and a request until its answer. Pure: no clock, no lock.

Rules:
- A turn is a step of the decoder and what is done until the next one. Its time depends on the slots
  in use (`ServiceTime`), and so does the encoder's on the source tokens.
- The steps of a row are estimated from rows that are done, as a line over the length of the source.
  A row that was cut off would have had more steps: it counts only if it had more than expected.
- Slots become free at a steady rate: as many as there are, in the mean number of steps of a row.
  A request waits until all its rows have got theirs.
- A request that finds free slots is judged by the fewest steps that its rows are likely to have,
  one that has to wait by the mean: others use its slots better if it is late.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from weir.server.generation.decoder_batch import Row
from weir.server.scheduling.service_time import ServiceTime

# The weight of a new row; the first rows weigh more.
_STEP = 0.05
# Mean absolute deviations below the mean that hardly a row has fewer steps than.
_FEWEST_DEVIATIONS = 2.5
_MIN_VARIANCE = 1e-9
_LENGTH = attrgetter("length")
_NO_LIMIT = 1 << 31


@dataclass(frozen=True, slots=True)
class StepCount:
    """Steps of a row as a line over the length of its source; newer rows count more.

    Attributes:
        rows: that it is made of.
        length, steps: their means.
        deviation: mean absolute difference from what was expected.
    """

    rows: int = 0
    length: float = 0.0
    steps: float = 0.0
    variance: float = 0.0
    covariance: float = 0.0
    deviation: float = 0.0

    def of(self, length: int) -> float:
        """The expected steps of a row; at least 1, and no fewer for a longer source."""
        slope = self.covariance / self.variance if self.variance > _MIN_VARIANCE else 0.0
        return max(1.0, self.steps + max(0.0, slope) * (length - self.length))

    def measured(self, length: int, steps: int) -> "StepCount":
        """The estimate after another row."""
        if not self.rows:
            return StepCount(1, length, steps)
        part = max(_STEP, 1 / (self.rows + 1))
        by, more = length - self.length, steps - self.steps
        return StepCount(
            self.rows + 1,
            self.length + part * by,
            self.steps + part * more,
            (1 - part) * (self.variance + part * by * by),
            (1 - part) * (self.covariance + part * by * more),
            self.deviation + part * (abs(steps - self.of(length)) - self.deviation),
        )


@dataclass(frozen=True, slots=True)
class Demand:
    """What rows of one request need of the decoder batch.

    Attributes:
        slots: of all rows.
        tokens: of all sources.
        longest: tokens of the longest source.
        limit: most steps of its row.
    """

    slots: int
    tokens: int
    longest: int
    limit: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Demand":
        """The demand of rows with one search."""
        longest = max(rows, key=_LENGTH)
        tokens = sum([row.length for row in rows])
        return cls(len(rows) * longest.search.slots, tokens, longest.length, longest.limit)


@dataclass(frozen=True, slots=True)
class SlotsAhead:
    """The decoder batch, and what goes before a request that is queued now.

    Attributes:
        used: slots in use.
        encoded: slots of rows that are encoded, or being encoded, and not in the batch yet.
        rows: that wait to be encoded.
        tokens: their source tokens.
    """

    used: int = 0
    encoded: int = 0
    rows: float = 0.0
    tokens: float = 0.0


class DecodeTime:
    """The estimates of one encoder-decoder.

    Its threads measure, the transport's thread reads; each estimate is replaced as a whole.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._turn = ServiceTime(capacity)
        self._encoder = ServiceTime(capacity)
        self._steps = StepCount()
        self._slots_of_row = 1.0

    @property
    def is_known(self) -> bool:
        """Whether a row has been decoded."""
        return self._steps.rows > 0

    def encoded(self, tokens: int, seconds: float) -> None:
        """Count a run of the encoder."""
        self._encoder = self._encoder.measured(max(1, tokens), seconds)

    def turned(self, slots: int, seconds: float) -> None:
        """Count a turn with so many slots in use."""
        self._turn = self._turn.measured(slots, seconds)

    def row_done(self, row: Row, steps: int, *, is_complete: bool) -> None:
        """Count a row that is done.

        Args:
            is_complete: whether it ended by itself.
        """
        self._slots_of_row += _STEP * (row.search.slots - self._slots_of_row)
        if is_complete or not self.is_known or steps > self._steps.of(row.length):
            self._steps = self._steps.measured(row.length, steps)

    def answer_s(self, demand: Demand, ahead: SlotsAhead) -> float:
        """Seconds until a request is answered, if it is queued now."""
        encoded_s = self._encoder.of(ahead.tokens + demand.tokens)
        slots_ahead = ahead.encoded + ahead.rows * self._slots_of_row
        return self._decoded_s(demand, ahead.used, slots_ahead, encoded_s)

    def typical_s(self, ahead: SlotsAhead) -> float | None:
        """Seconds until the answer of one row of the mean length; None before the first row."""
        if not self.is_known:
            return None
        length = round(self._steps.length)
        slots = round(self._slots_of_row)
        return self.answer_s(Demand(slots, length, length, _NO_LIMIT), ahead)

    def rest_s(self, demand: Demand, used: int) -> float:
        """Seconds until encoded rows are done, if they are the next to get slots."""
        return self._decoded_s(demand, used, 0.0, 0.0)

    def _decoded_s(self, demand: Demand, used: int, slots_ahead: float, encoded_s: float) -> float:
        slots, steps = used + slots_ahead + demand.slots, self._steps.of(demand.longest)
        if slots <= self._capacity:
            fewest = max(1.0, steps - _FEWEST_DEVIATIONS * self._steps.deviation)
            return encoded_s + min(fewest, demand.limit) * self._turn.of(slots)
        turn_s = self._turn.of(self._capacity)
        wait_s = (slots / self._capacity - 1) * self._steps.steps * turn_s
        # The encoder runs while others are decoded.
        return max(encoded_s, wait_s) + min(steps, demand.limit) * turn_s
