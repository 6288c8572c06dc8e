"""The process and what it runs on, with a row for GPUs."""

from deploy.grafana.panels import GOOD_BELOW, GREEN, RED, Dashboard, Panel, Query, Row, Variable
from deploy.grafana.promql import WINDOW, quantile, rate

_THIS = 'job="weir", instance=~"$instance"'
_NO_GPU = "no GPU"
"""Said in the panels that are empty in order where NVML finds no GPU."""

_NOW = Row(
    "Server",
    (
        Panel(
            "Up",
            "Whether Prometheus reaches the metrics port.",
            "none",
            (Query(f"up{{{_THIS}}}", "{{instance}}"),),
            kind="stat",
            width=6,
            steps=((0, RED), (1, GREEN)),
            words=((0, "down"), (1, "up")),
        ),
        Panel(
            "Runs for",
            "Since the process started. A small number that nobody explains: it was restarted; see the log.",
            "s",
            (Query(f"time() - process_start_time_seconds{{{_THIS}}}", "{{instance}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Version",
            "Of Weir and of ONNX Runtime, the provider that was asked for, and the transport.",
            "none",
            (
                Query(
                    f"weir_build_info{{{_THIS}}}",
                    "{{version}}, onnxruntime {{onnxruntime}}, {{provider}}, {{transport}}",
                ),
            ),
            kind="stat",
            width=12,
            shows_name=True,
        ),
    ),
)
_PROCESS = Row(
    "Process",
    (
        Panel(
            "CPU",
            "Cores in use. At the number of cores of the machine everything gets slower.",
            "none",
            (Query(f"rate(process_cpu_seconds_total{{{_THIS}}}{WINDOW})", "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "Resident. A rise that does not end, with the same models: a leak; keep it and tell us.",
            "bytes",
            (Query(f"process_resident_memory_bytes{{{_THIS}}}", "{{instance}}"),),
        ),
        Panel(
            "Open files, by the most there may be",
            "Connections count too. At 100 % no caller gets in.",
            "percentunit",
            (
                Query(
                    f"process_open_fds{{{_THIS}}} / process_max_fds{{{_THIS}}}",
                    "{{instance}}",
                ),
            ),
            steps=GOOD_BELOW["limit"],
        ),
    ),
)
_THREADS = Row(
    "Threads",
    (
        Panel(
            "I/O thread busy",
            "Share of the time in which the one thread that takes calls in was not waiting. Near 100 % every "
            "request waits for it.",
            "percentunit",
            (Query(f"rate(weir_io_busy_seconds_total{{{_THIS}}}{WINDOW})", "{{instance}}"),),
            steps=GOOD_BELOW["limit"],
        ),
        Panel(
            "I/O thread's delay",
            "How long an event waited for that thread, measured at each scrape. A rise: it is saturated, or the "
            "machine has no core for it.",
            "s",
            (Query(f"weir_io_delay_seconds{{{_THIS}}}", "{{instance}}"),),
        ),
        Panel(
            "Requests that wait to be decoded",
            "Pictures and texts. A rise: more of them than the cores can read.",
            "none",
            (Query(f"weir_preprocess_queue_requests{{{_THIS}}}", "{{instance}}"),),
        ),
        Panel(
            "Collections of garbage",
            "Python's, by generation. A rise of generation 2 stops every thread for longer.",
            "ops",
            (
                Query(
                    rate("python_gc_collections_total", "generation", _THIS),
                    "generation {{generation}}",
                ),
            ),
        ),
        Panel(
            "Objects collected",
            "In cycles. A rise that traffic does not explain: something makes cycles.",
            "ops",
            (Query(rate("python_gc_objects_collected_total", "", _THIS), "objects"),),
        ),
        Panel(
            "Log lines dropped",
            "Of the request log, since its reader is slower than it. Serving does not wait for it.",
            "ops",
            (Query(rate("weir_log_dropped_total", "instance", _THIS), "{{instance}}"),),
        ),
    ),
)
_CALLS = Row(
    "gRPC",
    (
        Panel(
            "Calls by method",
            "Started. unknown: nobody serves what was asked for.",
            "reqps",
            (
                Query(
                    rate("grpc_server_started_total", "grpc_service, grpc_method", _THIS),
                    "{{grpc_service}}/{{grpc_method}}",
                ),
            ),
        ),
        Panel(
            "Calls by code",
            "Ended, of every method, health and reflection among them.",
            "reqps",
            (Query(rate("grpc_server_handled_total", "grpc_code", _THIS), "{{grpc_code}}"),),
            is_stacked=True,
        ),
        Panel(
            "95 % of calls end within, by method",
            "Streams last as long as their callers keep them open.",
            "s",
            (
                Query(
                    quantile(0.95, "grpc_server_handling_seconds", "grpc_method", _THIS),
                    "{{grpc_method}}",
                ),
            ),
        ),
    ),
)
_GPU = Row(
    "GPU (empty where there is none)",
    (
        Panel(
            "GPU memory in use",
            "By all processes on the GPU. Near 100 % models fail to load, and runs end with RESOURCE_EXHAUSTED.",
            "percentunit",
            (
                Query(
                    f"weir_gpu_memory_used_bytes{{{_THIS}}} / weir_gpu_memory_total_bytes{{{_THIS}}}",
                    "GPU {{gpu}}",
                ),
            ),
            width=12,
            steps=GOOD_BELOW["limit"],
            no_value=_NO_GPU,
        ),
        Panel(
            "GPU busy",
            "Share of the time in which a kernel ran. Low while queues grow: the host is what is slow.",
            "percentunit",
            (Query(f"weir_gpu_utilization_ratio{{{_THIS}}}", "GPU {{gpu}}"),),
            width=12,
            no_value=_NO_GPU,
        ),
    ),
)

HOST = Dashboard(
    "host",
    "Weir host",
    "The process and what it runs on.",
    (_NOW, _PROCESS, _THREADS, _CALLS, _GPU),
    (Variable("instance", 'label_values(up{job="weir"}, instance)', True),),
)
