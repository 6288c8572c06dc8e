import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.unit.server.conftest import HANG_S, Clock
from weir.server.errors import Cancelled, DeadlineExceeded, Draining, InvalidRequest, Overloaded
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.worker_pool import PoolLimits, WorkerPool

LATER = 1e9


@dataclass(eq=False)
class Job:
    """A fake job, worked on for as long as the test says."""

    payload_bytes: int = 1
    peer: str = "one"
    arrived_s: float = 0.0
    deadline_s: float = LATER
    is_wanted: bool = True
    work_error: Exception | None = None
    proceed_error: Exception | None = None
    may_end: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    thread: str = ""
    outcomes: list[Exception | None] = field(default_factory=list)

    def work(self) -> None:
        self.thread = threading.current_thread().name
        self.began.set()
        assert self.may_end.wait(HANG_S)
        if self.work_error is not None:
            raise self.work_error

    def proceed(self) -> None:
        if self.proceed_error is not None:
            raise self.proceed_error
        self.outcomes.append(None)
        self.ended.set()

    def fail(self, error: Exception) -> None:
        self.outcomes.append(error)
        self.ended.set()

    def outcome(self) -> Exception | None:
        assert self.ended.wait(HANG_S)
        (outcome,) = self.outcomes
        return outcome


OpenPool = Callable[..., WorkerPool]


@pytest.fixture
def open_pool(clock: Clock) -> Iterator[OpenPool]:
    pools: list[WorkerPool] = []

    def open_pool(threads: int = 1, limits: PoolLimits | None = None) -> WorkerPool:
        pool = WorkerPool(threads, deadlines=Deadlines(clock), limits=limits, clock=clock)
        pools.append(pool)
        pool.start()
        return pool

    yield open_pool
    for pool in pools:
        pool.close()
        assert pool.join(HANG_S)


def submit(pool: WorkerPool, job: Job, *, may_end: bool = True) -> Job:
    if may_end:
        job.may_end.set()
    pool.submit(job)
    return job


def occupy(pool: WorkerPool) -> Job:
    """A job that is at work, and keeps its thread until it may end."""
    job = submit(pool, Job(), may_end=False)
    assert job.began.wait(HANG_S)
    return job


def test_job_runs_on_a_named_thread_and_proceeds(open_pool: OpenPool) -> None:
    job = submit(open_pool(), Job())

    assert job.outcome() is None
    assert job.thread == "weir-preprocess_0"


def test_jobs_are_worked_on_side_by_side(open_pool: OpenPool) -> None:
    pool = open_pool(2)

    jobs = [occupy(pool), occupy(pool)]

    assert {job.thread for job in jobs} == {"weir-preprocess_0", "weir-preprocess_1"}
    for job in jobs:
        job.may_end.set()
        assert job.outcome() is None


def test_one_thread_takes_jobs_in_the_order_of_their_arrival(open_pool: OpenPool) -> None:
    pool = open_pool(1)
    jobs = [Job() for _ in range(4)]
    for job in jobs:
        pool.submit(job)

    for number, job in enumerate(jobs):
        assert job.began.wait(HANG_S)
        assert not any(later.began.is_set() for later in jobs[number + 1 :])
        job.may_end.set()
        assert job.outcome() is None


@pytest.mark.parametrize("stage", ["work_error", "proceed_error"])
def test_job_that_fails_does_not_stop_the_next(open_pool: OpenPool, stage: str) -> None:
    pool = open_pool()
    error = InvalidRequest("broken")

    failed = submit(pool, Job(**{stage: error}))  # type: ignore[arg-type]
    good = submit(pool, Job())

    assert failed.outcome() is error
    assert good.outcome() is None


def test_bug_in_sending_a_failure_loses_no_thread(
    open_pool: OpenPool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_pool()
    bad = Job(work_error=InvalidRequest("broken"))

    def fail(_error: Exception) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bad, "fail", fail)
    submit(pool, bad)

    assert submit(pool, Job()).outcome() is None
    assert "a bug" in caplog.text


def test_full_queue_refuses_at_once(open_pool: OpenPool) -> None:
    pool = open_pool(limits=PoolLimits(jobs=2))
    running = occupy(pool)
    waiting = [submit(pool, Job()), submit(pool, Job())]

    with pytest.raises(Overloaded, match="weir-preprocess: 2 requests of 2 bytes wait"):
        pool.submit(Job())

    assert pool.waiting() == 2
    running.may_end.set()
    assert [job.outcome() for job in waiting] == [None, None]
    assert pool.waiting() == 0


def test_queue_is_bounded_in_bytes_too(open_pool: OpenPool) -> None:
    pool = open_pool(limits=PoolLimits(payload_bytes=100))
    running = occupy(pool)
    large = submit(pool, Job(payload_bytes=1000))

    with pytest.raises(Overloaded):
        pool.submit(Job())

    running.may_end.set()
    assert large.outcome() is None
    assert submit(pool, Job()).outcome() is None


def test_cancelled_in_the_queue_is_never_worked_on(open_pool: OpenPool) -> None:
    pool = open_pool()
    running = occupy(pool)
    gone, stays = submit(pool, Job()), submit(pool, Job())

    pool.cancel(gone)
    pool.cancel(gone)
    running.may_end.set()

    assert isinstance(gone.outcome(), Cancelled)
    assert stays.outcome() is None
    assert not gone.began.is_set()


def test_job_cancelled_while_it_runs_is_not_wanted(open_pool: OpenPool) -> None:
    pool = open_pool()
    job = occupy(pool)

    pool.cancel(job)

    assert not job.is_wanted
    assert isinstance(job.outcome(), Cancelled)
    job.may_end.set()
    assert submit(pool, Job()).outcome() is None
    assert len(job.outcomes) == 1


def test_caller_that_left_at_its_deadline_exceeded_it(open_pool: OpenPool, clock: Clock) -> None:
    pool = open_pool()
    running = occupy(pool)
    job = submit(pool, Job(deadline_s=clock.now))

    pool.cancel(job)

    assert isinstance(job.outcome(), DeadlineExceeded)
    running.may_end.set()


@pytest.mark.parametrize(
    ("left_s", "reason"),
    [(0.02, DeadlineExceeded), (0.5, Cancelled)],
    ids=["just before", "halfway"],
)
def test_caller_is_late_as_soon_as_its_rounded_deadline_passed(
    open_pool: OpenPool, clock: Clock, left_s: float, reason: type[Exception]
) -> None:
    """gRPC adds a percent to a deadline on the wire: the client closes before the server's ends."""
    pool = open_pool()
    running = occupy(pool)
    job = submit(pool, Job(arrived_s=clock.now - 1.0 + left_s, deadline_s=clock.now + left_s))

    pool.cancel(job)

    assert isinstance(job.outcome(), reason)
    running.may_end.set()


def test_what_is_late_is_answered_while_the_threads_are_busy(
    open_pool: OpenPool, clock: Clock
) -> None:
    pool = open_pool()
    at_work = submit(pool, Job(deadline_s=clock.now + 1), may_end=False)
    assert at_work.began.wait(HANG_S)
    waiting = submit(pool, Job(deadline_s=clock.now + 2))
    later = submit(pool, Job(deadline_s=clock.now + 3))

    assert pool.expire(clock.now) == clock.now + 1
    assert pool.expire(clock.now + 2) == clock.now + 3

    assert isinstance(at_work.outcome(), DeadlineExceeded)
    assert isinstance(waiting.outcome(), DeadlineExceeded)
    at_work.may_end.set()
    assert later.outcome() is None
    assert pool.expire(LATER) == float("inf")


def test_job_that_is_late_already_is_never_worked_on(open_pool: OpenPool, clock: Clock) -> None:
    job = submit(open_pool(), Job(deadline_s=clock.now))

    assert isinstance(job.outcome(), DeadlineExceeded)
    assert not job.began.is_set()


def test_closed_pool_finishes_what_it_has_and_takes_no_more(open_pool: OpenPool) -> None:
    pool = open_pool()
    running = occupy(pool)
    waiting = submit(pool, Job())

    pool.close()

    with pytest.raises(Draining):
        pool.submit(Job())
    assert not pool.join(0.0)
    running.may_end.set()
    assert (running.outcome(), waiting.outcome()) == (None, None)
    assert pool.join(HANG_S)


@pytest.mark.parametrize("row", ["H08"])
def test_peers_take_turns(open_pool: OpenPool, row: str) -> None:
    """Many jobs of one peer keep a job of another waiting for one of them only."""
    pool = open_pool()
    first = occupy(pool)
    many = [submit(pool, Job(peer="many"), may_end=False) for _ in range(5)]
    single = submit(pool, Job(peer="single"), may_end=False)

    first.may_end.set()
    assert many[0].began.wait(HANG_S)
    many[0].may_end.set()
    assert single.began.wait(HANG_S)

    assert not many[1].began.is_set()
    for job in (*many, single):
        job.may_end.set()


def measure(pool: WorkerPool, clock: Clock, *, seconds: float, payload_bytes: int = 1) -> None:
    """Let a job take so long that the pool knows the time of the next ones."""
    job = submit(pool, Job(payload_bytes=payload_bytes), may_end=False)
    assert job.began.wait(HANG_S)
    clock.advance(seconds)
    job.may_end.set()
    assert job.outcome() is None


def test_job_that_cannot_be_done_in_time_is_refused_at_once(
    open_pool: OpenPool, clock: Clock
) -> None:
    pool = open_pool()
    measure(pool, clock, seconds=1.0)
    running = occupy(pool)
    waiting = [submit(pool, Job(deadline_s=clock.now + 10.0)) for _ in range(7)]

    with pytest.raises(Overloaded, match="expected to be done in 9 s, it has 10 s") as error:
        submit(pool, Job(deadline_s=clock.now + 10.0))

    # 8 s of the ten may be used.
    assert error.value.retry_after_s == pytest.approx(1.0)
    patient = submit(pool, Job(deadline_s=clock.now + 20.0))
    running.may_end.set()
    assert [job.outcome() for job in (running, *waiting, patient)] == [None] * 9


@pytest.mark.parametrize("leaves", ["cancelled", "late"])
def test_thread_of_an_answered_job_is_busy_until_its_work_ends(
    open_pool: OpenPool, clock: Clock, leaves: str
) -> None:
    pool = open_pool()
    measure(pool, clock, seconds=10.0)
    left = submit(pool, Job(deadline_s=clock.now + 1.0), may_end=False)
    assert left.began.wait(HANG_S)
    if leaves == "cancelled":
        pool.cancel(left)
    else:
        clock.advance(1.0)
        pool.expire(clock.now)
    assert left.outcome() is not None

    with pytest.raises(Overloaded, match="expected to be done"):
        submit(pool, Job(deadline_s=clock.now + 15.0))

    patient = submit(pool, Job(deadline_s=clock.now + 100.0))
    left.may_end.set()
    assert patient.outcome() is None


def test_free_thread_takes_any_job(open_pool: OpenPool, clock: Clock) -> None:
    """The estimate may be wrong, and nothing else would correct it."""
    pool = open_pool(2)
    measure(pool, clock, seconds=1000.0)
    occupied = occupy(pool)

    assert submit(pool, Job(deadline_s=clock.now + 1.0)).outcome() is None
    occupied.may_end.set()


def test_larger_job_is_expected_to_take_longer(open_pool: OpenPool, clock: Clock) -> None:
    pool = open_pool()
    for _ in range(20):
        measure(pool, clock, seconds=1.0, payload_bytes=1000)
        measure(pool, clock, seconds=8.0, payload_bytes=8000)
    running = submit(pool, Job(payload_bytes=1000), may_end=False)
    assert running.began.wait(HANG_S)

    small = submit(pool, Job(payload_bytes=1000, deadline_s=clock.now + 5.0))
    with pytest.raises(Overloaded):
        submit(pool, Job(payload_bytes=8000, deadline_s=clock.now + 5.0))

    running.may_end.set()
    assert small.outcome() is None


def test_jobs_of_one_peer_refuse_none_of_another(open_pool: OpenPool, clock: Clock) -> None:
    pool = open_pool()
    measure(pool, clock, seconds=1.0)
    running = occupy(pool)
    many = [submit(pool, Job(peer="many")) for _ in range(50)]

    single = submit(pool, Job(peer="single", deadline_s=clock.now + 5.0))

    running.may_end.set()
    assert [job.outcome() for job in (*many, single)] == [None] * 51
