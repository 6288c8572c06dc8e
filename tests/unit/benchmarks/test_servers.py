import os
import subprocess
import sys

from benchmarks.lib import servers

PAGE = """# HELP weir_requests_total Answered.
weir_requests_total{model="a",status="OK"} 3.0
weir_requests_total{model="b",status="OK"} 4.0
weir_requests_total{model="a",status="NOT_FOUND"} 7.0
weir_requests_total_created 1.7e+09
weir_batches_total{model="a"} 2.0
"""


def test_a_metric_is_the_sum_of_the_matching_samples() -> None:
    assert servers.total(PAGE, "weir_requests_total", '"OK"') == 7
    assert servers.total(PAGE, "weir_batches_total") == 2
    assert servers.total(PAGE, "nv_inference_exec_count") == 0


def test_a_family_holds_those_that_descend_from_it() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        while len(servers.family(process.pid)) < 2 and process.poll() is None:
            pass
        found = servers.family(process.pid)
        process.communicate(b"\n")

    assert found[0] == process.pid
    assert len(found) == 2
    assert process.pid in servers.family(os.getpid()) or process.returncode == 0
