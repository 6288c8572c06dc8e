"""The schedule of a soak."""

from itertools import pairwise

from tests.soak import schedule
from tests.soak.faults import FAULTS


def test_schedule_depends_on_the_seed_alone() -> None:
    assert schedule.plan(3, 600.0) == schedule.plan(3, 600.0)
    assert schedule.plan(3, 600.0) != schedule.plan(4, 600.0)


def test_a_minute_has_each_fault_and_an_hour_has_each_often() -> None:
    minute, hour = schedule.plan(1, 60.0), schedule.plan(1, 3600.0)

    assert {fault.name for fault in minute.faults} == set(FAULTS)
    names = [fault.name for fault in hour.faults]
    assert min(names.count(name) for name in FAULTS) >= 10


def test_one_server_serves_the_second_half_of_an_hour() -> None:
    hour = schedule.plan(1, 3600.0)

    assert hour.unbroken_s <= 1800.0
    late = {fault.name for fault in hour.faults if fault.at_s > hour.unbroken_s}
    assert not late & {"sigterm", "kill_server", "memory_limit", "full_disk", "few_descriptors"}


def test_faults_and_phases_follow_each_other_within_the_traffic() -> None:
    plan = schedule.plan(5, 900.0)

    times = [fault.at_s for fault in plan.faults]
    assert times == sorted(times)
    assert times[-1] < plan.end_of_traffic_s
    ends = [(phase.end_s, following.start_s) for phase, following in pairwise(plan.phases)]
    assert all(abs(end_s - start_s) < 1e-6 for end_s, start_s in ends)
