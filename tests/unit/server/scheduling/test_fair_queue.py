"""The order in which peers have their turns."""

from dataclasses import dataclass

from weir.server.scheduling.fair_queue import FairQueue


@dataclass(eq=False)
class Job:
    peer: str


def run(queue: FairQueue[Job], took_s: float) -> str:
    job = queue.start()
    queue.end(job, took_s)
    return job.peer


def test_jobs_of_a_peer_keep_their_order() -> None:
    queue: FairQueue[Job] = FairQueue()
    jobs = [Job("a") for _ in range(3)]
    for job in jobs:
        queue.add(job)

    assert [queue.start() for _ in range(3)] == jobs
    assert not len(queue)


def test_peer_with_short_jobs_goes_before_one_with_long_jobs() -> None:
    queue: FairQueue[Job] = FairQueue()
    for _ in range(10):
        queue.add(Job("long"))
    run(queue, 1.0)
    for _ in range(5):
        queue.add(Job("short"))

    order = []
    for _ in range(6):
        job = queue.start()
        queue.end(job, 1.0 if job.peer == "long" else 0.01)
        order.append(job.peer)

    assert order == [*["short"] * 5, "long"]


def test_peer_that_was_away_saves_up_nothing() -> None:
    queue: FairQueue[Job] = FairQueue()
    for _ in range(100):
        queue.add(Job("busy"))
        run(queue, 1.0)
    for _ in range(4):
        queue.add(Job("busy"))
        queue.add(Job("new"))

    order = [run(queue, 1.0) for _ in range(8)]

    assert order.count("new") == 4
    assert "busy" in order[:3]


def test_removed_job_has_no_turn() -> None:
    queue: FairQueue[Job] = FairQueue()
    removed, kept = Job("a"), Job("a")
    queue.add(removed)
    queue.add(kept)

    queue.remove(removed)

    assert removed not in queue and kept in queue
    assert list(queue) == [kept] == [queue.start()]


def test_peers_are_forgotten() -> None:
    """One that took a second goes behind one that took less, unless it is forgotten."""

    def first_of(others: int) -> str:
        queue: FairQueue[Job] = FairQueue()
        for job, took_s in ((Job("old"), 1.0), (Job("other"), 0.5)):
            queue.add(job)
            run(queue, took_s)
        for number in range(others):
            queue.add(Job(str(number)))
            run(queue, 0.001)
        queue.add(Job("old"))
        queue.add(Job("other"))
        return queue.start().peer

    assert first_of(others=10) == "other"
    assert first_of(others=5000) == "old"
