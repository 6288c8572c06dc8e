"""The server process, its threads, its gRPC calls, and the GPUs."""

from tools.dashboards.panels import (
    GREEN,
    RED,
    THRESHOLDS,
    Dashboard,
    Panel,
    Query,
    Row,
    Variable,
    stat,
)
from tools.dashboards.promql import WINDOW, quantile, rate

_THIS = 'job="weir", instance=~"$instance"'
_NO_GPU = "no GPU"
"""Shown by the GPU panels if NVML finds no GPU."""

_SUMMARY = Row("Summary", (
    stat("Status", "none",
        "Whether Prometheus can scrape the server's metrics port.",
        (Query(f"up{{{_THIS}}}", "{{instance}}"),),
        width=6, steps=((0, RED), (1, GREEN)), value_names=((0, "down"), (1, "up"))),
    stat("Uptime", "s",
        "Time since the process started. If it is unexpectedly short, the process restarted; "
        "see the log.",
        (Query(f"time() - process_start_time_seconds{{{_THIS}}}", "{{instance}}"),), width=6),
    stat("Version", "none",
        "Version of Weir, of ONNX Runtime and of grpcio, execution provider, and transport.",
        (Query(f"weir_build_info{{{_THIS}}}",
               "{{version}}, onnxruntime {{onnxruntime}}, grpcio {{grpcio}}, {{provider}}, "
               "{{transport}}"),),
        width=8, shows_name=True),
    stat("Transport fallback", "none",
        "Whether `--transport auto` took grpc-server, because the version of grpcio is not a "
        "tested one. A small call then takes several times the CPU.",
        (Query(f"weir_transport_fallback{{{_THIS}}}", "{{instance}}"),),
        width=4, steps=((0, GREEN), (1, RED)), value_names=((0, "no fallback"), (1, "fallback"))),
))  # fmt: skip
_PROCESS = Row("Process", (
    Panel("CPU usage", "none",
        "CPU cores in use. If it reaches the machine's number of cores, latency rises.",
        (Query(f"rate(process_cpu_seconds_total{{{_THIS}}}{WINDOW})", "{{instance}}"),)),
    Panel("Memory usage", "bytes",
        "Resident memory. If it keeps rising with the same models, report a memory leak.",
        (Query(f"process_resident_memory_bytes{{{_THIS}}}", "{{instance}}"),)),
    Panel("File descriptor utilisation", "percentunit",
        "Open files and connections divided by the limit. At 100 % no client can connect.",
        (Query(f"process_open_fds{{{_THIS}}} / process_max_fds{{{_THIS}}}", "{{instance}}"),),
        steps=THRESHOLDS["limit"]),
))  # fmt: skip
_THREADS = Row("Threads", (
    Panel("I/O thread utilisation", "percentunit",
        "Share of time the I/O thread is busy. Near 100 % every request waits for this thread.",
        (Query(f"rate(weir_io_busy_seconds_total{{{_THIS}}}{WINDOW})", "{{instance}}"),),
        steps=THRESHOLDS["limit"]),
    Panel("I/O thread delay", "s",
        "Time an event waits for the I/O thread, measured at each scrape. A rise means that "
        "the thread is saturated, or that no core is free for it.",
        (Query(f"weir_io_delay_seconds{{{_THIS}}}", "{{instance}}"),)),
    Panel("Preprocessing queue", "none",
        "Requests with images or texts that wait for preprocessing, and requests with large "
        "messages that wait to be parsed. A rise means that the cores cannot keep up.",
        (Query(f"weir_preprocess_queue_requests{{{_THIS}}}", "{{instance}}"),
         Query(f"weir_parse_queue_requests{{{_THIS}}}", "{{instance}} parsing"))),
    Panel("Garbage collections per second", "ops",
        "Python's garbage collections by generation. A collection of generation 2 pauses "
        "every thread the longest.",
        (Query(rate("python_gc_collections_total", "generation", _THIS),
               "generation {{generation}}"),)),
    Panel("Garbage-collected objects per second", "ops",
        "Objects freed from reference cycles. A rise without more traffic: the code creates "
        "cycles.",
        (Query(rate("python_gc_objects_collected_total", "", _THIS), "objects"),)),
    Panel("Dropped log lines per second", "ops",
        "Log lines that were not written, because the log's reader is too slow. Requests do "
        "not wait for the log.",
        (Query(rate("weir_log_dropped_total", "instance", _THIS), "{{instance}}"),)),
))  # fmt: skip
_CALLS = Row("gRPC", (
    Panel("Calls per second by method", "reqps",
        "Started calls. unknown: the server does not have the method.",
        (Query(rate("grpc_server_started_total", "grpc_service, grpc_method", _THIS),
               "{{grpc_service}}/{{grpc_method}}"),)),
    Panel("Calls per second by status code", "reqps",
        "Finished calls of every method, with health checks and reflection.",
        (Query(rate("grpc_server_handled_total", "grpc_code", _THIS), "{{grpc_code}}"),),
        is_stacked=True),
    Panel("Call duration p95 by method", "s",
        "Time from a call's arrival to its end. A stream lasts until the client closes it.",
        (Query(quantile(0.95, "grpc_server_handling_seconds", "grpc_method", _THIS),
               "{{grpc_method}}"),)),
))  # fmt: skip
_GPU = Row("GPU", (
    Panel("GPU memory utilisation", "percentunit",
        "Memory in use by all processes on the GPU. Near 100 % models fail to load and "
        "requests end with RESOURCE_EXHAUSTED.",
        (Query(f"weir_gpu_memory_used_bytes{{{_THIS}}} / weir_gpu_memory_total_bytes{{{_THIS}}}",
               "GPU {{gpu}}"),),
        width=12, steps=THRESHOLDS["limit"], no_value=_NO_GPU),
    Panel("GPU utilisation", "percentunit",
        "Share of time a kernel runs on the GPU. If it is low while queues grow, the host is "
        "the bottleneck.",
        (Query(f"weir_gpu_utilization_ratio{{{_THIS}}}", "GPU {{gpu}}"),),
        width=12, no_value=_NO_GPU),
))  # fmt: skip

HOST = Dashboard(
    "host",
    "Weir host",
    "The server process, its threads, its gRPC calls, and the GPUs.",
    (_SUMMARY, _PROCESS, _THREADS, _CALLS, _GPU),
    (Variable("instance", 'label_values(up{job="weir"}, instance)', True),),
)
