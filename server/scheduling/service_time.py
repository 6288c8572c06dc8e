"""Service time: how long a run takes, and how long a request waits for its own. Pure: no clock.

A run of `work` rows, or tokens where rows have lengths, takes `fixed_s + unit_s * work`. Both are
estimated from the runs measured so far, by normalised least mean squares:

- Each run moves the estimate a part of the way from what was expected to what was measured, so old
  runs are forgotten, and runs of one size keep what other sizes have shown.
- A run that took several times what was expected moves it no further than one of twice the time:
  a pause of the machine is no change of the model. A model that has become slower is followed
  within a dozen runs.
- The first run alone cannot tell what a larger one takes; its time is taken for all of them. An
  estimate that is too low admits too much, until larger runs correct it; one that is too high
  would refuse what could be answered.
"""

from dataclasses import dataclass

USABLE_SHARE = 0.8
"""Of the time that a request has, the part that its predicted answer may take.

The rest is for what is not measured, such as the way to the client. While requests wait, it costs
no throughput.
"""

# Of the way from the expected to the measured time; the first runs move it further.
_STEP = 0.2
_FIRST_RUNS = 8
_OUTLIER = 2.0
# Below this a run is no outlier, however short the others are.
_MIN_S = 0.001


@dataclass(slots=True)
class ServiceTime:
    """The estimate for one model, and the mean size of its batches while requests wait.

    Immutable, but not frozen: it is made for each batch, and a frozen one takes a microsecond.

    Attributes:
        fixed_s: of a run, whatever its size.
        unit_s: of each unit of work.
        largest: the most work of a run so far.
        runs: that it is made of.
        full_rows: rows of a batch that leaves others waiting.
    """

    full_rows: float
    fixed_s: float = 0.0
    unit_s: float = 0.0
    largest: float = 1.0
    runs: int = 0

    def of(self, work: float) -> float:
        """Seconds of a run."""
        return self.fixed_s + self.unit_s * work

    def measured(
        self, work: float, seconds: float, *, rows: int = 0, is_full: bool = False
    ) -> "ServiceTime":
        """The estimate after another run.

        Args:
            rows: of the batch.
            is_full: whether it left others waiting.
        """
        full_rows = self.full_rows + _STEP * (rows - self.full_rows) if is_full else self.full_rows
        if not self.runs:
            return ServiceTime(full_rows, seconds, 0.0, work, 1)
        largest = max(self.largest, work)
        expected_s = self.of(work)
        if self.runs >= _FIRST_RUNS:
            seconds = min(seconds, max(_OUTLIER * expected_s, _MIN_S))
        size = work / largest
        step = max(_STEP, 1 / (self.runs + 1)) * (seconds - expected_s) / (1 + size * size)
        fixed_s = self.fixed_s + step
        unit_s = self.unit_s + step * size / largest
        # Neither is negative; the time of a run of this size stays what it is.
        if fixed_s < 0:
            fixed_s, unit_s = 0.0, max(0.0, unit_s + fixed_s / work)
        elif unit_s < 0:
            fixed_s, unit_s = max(0.0, fixed_s + unit_s * work), 0.0
        return ServiceTime(full_rows, fixed_s, unit_s, largest, self.runs + 1)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What runs before a request.

    Attributes:
        rows: that wait and go before it.
        work: of these rows.
        sessions: that run batches at the same time.
        running_s: until the first of them is free.
    """

    rows: float
    work: float
    sessions: int
    running_s: float


def answer_s(service: ServiceTime, ahead: Ahead, *, rows: int, work: float) -> float:
    """Seconds until a request of so many rows is answered, if it is queued now."""
    full_rows = service.full_rows
    row_work = (ahead.work + work) / (ahead.rows + rows)
    full_s = service.of(full_rows * row_work)
    batches = ahead.rows // full_rows
    # Before its own batch is cut, other requests fill it up if batches wait already.
    own_s = full_s if batches else service.of(min(full_rows, ahead.rows + rows) * row_work)
    return ahead.running_s + batches * full_s / ahead.sessions + max(own_s, service.of(work))


def most_s(service: ServiceTime, rows: float, work: float) -> float:
    """An upper bound of `answer_s`, which costs a fraction of it.

    Args:
        rows: that wait.
        work: of these rows and of the request.
    """
    return service.fixed_s * (2 + rows / service.full_rows) + service.unit_s * (
        service.largest + 2 * work
    )
