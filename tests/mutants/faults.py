"""Planted faults of the server: one edit of its source each, which a row's own tests must catch."""

from dataclasses import dataclass
from pathlib import Path


class PlantError(Exception):
    """The text that a planted fault replaces is not in its file exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        row: of `docs/faults.md`.
        what: the fault, in words.
        file: whose text is replaced, from the root of the tree.
        tests: of the row, by name, that must catch it; one is enough.
    """

    row: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def plant(self, tree: Path) -> None:
        """Replace the text in a tree.

        Raises:
            PlantError: it is not there exactly once.
        """
        path = tree / self.file
        text = path.read_text() if path.is_file() else ""
        if (count := text.count(self.old)) != 1:
            raise PlantError(f"{self.row}: {self.file}: expected {self.old!r} once, got {count}")
        path.write_text(text.replace(self.old, self.new))


MUTANTS = (
    Mutant(
        "A01",
        "the datatype of an input is not compared",
        "server/runtime/signature.py",
        "    if datatype != spec.datatype:\n",
        "    if not datatype:\n",
        ("test_request",),
    ),
    Mutant(
        "A09",
        "one row more than the limit is taken",
        "server/runtime/signature.py",
        "        if rows > self.max_rows:\n",
        "        if rows > self.max_rows + 1:\n",
        ("test_request",),
    ),
    Mutant(
        "A13",
        "a typed value outside its datatype wraps around",
        "server/protocol/request_decoder.py",
        "    if wide.size and not (bounds.min <= wide.min() and wide.max() <= bounds.max):\n",
        "    if wide.size and not bounds.min <= bounds.max:\n",
        ("test_request",),
    ),
    Mutant(
        "A15",
        "the axes of an input are not bounded before it is parsed",
        "server/protocol/message_limits.py",
        "        if number == _SHAPE and field_end - field_start > _MAX_SHAPE_BYTES:\n",
        "        if number == _SHAPE and field_end < field_start:\n",
        ("test_request",),
    ),
    Mutant(
        "B04",
        "a request may ask for more steps than its model has",
        "server/generation/encoder_decoder.py",
        "            limit=min(limit, search.max_tokens or limit),\n",
        "            limit=search.max_tokens or limit,\n",
        ("test_rows_are_cut_to_their_lengths_and_limits",),
    ),
    Mutant(
        "B06",
        "the limit of pixels is ten times what it was",
        "server/preprocessing/images.py",
        "    if width * height > MAX_PIXELS:\n",
        "    if width * height > 10 * MAX_PIXELS:\n",
        ("test_picture",),
    ),
    Mutant(
        "B09",
        "bytes of a BOOL are not checked",
        "server/protocol/request_decoder.py",
        "    if array.size and array.view(np.uint8).max() > 1:\n",
        "    if array.size and array.view(np.uint8).max() > 255:\n",
        ("test_request",),
    ),
    Mutant(
        "B10",
        "raw bytes become a big-endian array",
        "weir/protocol/datatypes.py",
        "    return np.ndarray(shape, row.dtype, raw)\n",
        "    return np.ndarray(shape, row.dtype.newbyteorder(), raw)\n",
        ("test_array_of_raw_bytes_is_little_endian_and_native",),
    ),
    Mutant(
        "C07",
        "core alone bounds metadata, which a client that acknowledges nothing escapes",
        "server/transport/completion_queue.py",
        "limits.metadata_bytes, limits.connections_by_peer, socket_path\n",
        "1 << 24, limits.connections_by_peer, socket_path\n",
        ("test_metadata_over_the_limit_is_refused",),
    ),
    Mutant(
        "C08",
        "gRPC core logs what it closes",
        "server/__main__.py",
        '        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")\n',
        '        os.environ.update(GRPC_VERBOSITY="DEBUG", GRPC_TRACE="http")\n',
        ("test_other_protocol_is_closed_and_does_not_fill_the_log",),
    ),
    Mutant(
        "C09",
        "the handshake timeout is two minutes, as core's default",
        "server/transport/base.py",
        '("grpc.server_handshake_timeout_ms", int(self.handshake_timeout_s * 1000))',
        '("grpc.server_handshake_timeout_ms", 120_000)',
        ("test_silent_connections_are_closed_at_the_handshake_timeout",),
    ),
    Mutant(
        "C10",
        "an answer that is not read is kept",
        "server/transport/open_calls.py",
        "            call.drop()\n",
        "            del call\n",
        ("test_answer_that_is_not_read_is_dropped_after_the_default_deadline",),
    ),
    Mutant(
        "C11",
        "a call that its client resets stays open",
        "server/transport/completion_queue.py",
        "        self._stats.ended(self._code, open_s)\n",
        "        if not self.cancelled:\n            self._stats.ended(self._code, open_s)\n",
        ("test_rapid_resets_leave_no_open_call",),
    ),
    Mutant(
        "C12",
        "no pings are sent",
        "server/transport/base.py",
        '("grpc.keepalive_time_ms", int(self.keepalive_s * 1000))',
        '("grpc.keepalive_time_ms", 2**31 - 1)',
        ("test_stopped_client_is_given_up_and_its_request_leaves",),
    ),
    Mutant(
        "C13",
        "pings are permitted at any rate",
        "server/transport/base.py",
        '("grpc.http2.min_ping_interval_without_data_ms", int(self.ping_interval_s * 1000))',
        '("grpc.http2.min_ping_interval_without_data_ms", 0)',
        ("test_more_pings_than_permitted_close_the_connection",),
    ),
    Mutant(
        "D01",
        "an expired request is refused, but keeps its place and is computed",
        "server/scheduling/scheduler.py",
        "            for request in late:\n                self._queue.take(request)\n",
        "            for request in late:\n                pass\n",
        (
            "test_deadline_in_the_queue_is_kept_and_the_request_never_run",
            "test_queue_timeout_parameter_is_kept",
        ),
    ),
    Mutant(
        "D04",
        "the default deadline is a day, whatever the setting",
        "server/scheduling/admission.py",
        "            return self._default_deadline_s\n",
        "            return 86_400.0\n",
        ("test_default_deadline_is_the_servers",),
    ),
    Mutant(
        "D05",
        "a cancelled request keeps its place in the queue",
        "server/scheduling/scheduler.py",
        "            is_ours = self._queue.take(request)\n",
        "            is_ours = False\n",
        ("test_cancelled_in_the_queue_is_gone_and_harms_nobody",),
    ),
    Mutant(
        "D07",
        "the bytes of a cancelled request stay counted as in flight",
        "server/scheduling/scheduler.py",
        "        if is_ours:\n            refuse(request, closed_error",
        "        if is_ours and not request.held_bytes:\n            refuse(request, closed_error",
        ("test_storm_of_cancels_and_killed_clients_leave_no_place_taken",),
    ),
    Mutant(
        "D08",
        "requests are taken in the reverse order of their deadlines",
        "server/scheduling/deadline_order.py",
        "    return keyed[0]\n",
        "    return -keyed[0]\n",
        ("test_urgent_calls_pass_patient_ones",),
    ),
    Mutant(
        "D09",
        "one batch runs at a time, of all models",
        "server/scheduling/scheduler.py",
        "            outputs = self._outputs(batch, joined)\n",
        '            with logger.__dict__.setdefault("turn", threading.Lock()):\n'
        "                outputs = self._outputs(batch, joined)\n",
        ("test_a_flooded_model_leaves_another_its_share",),
    ),
    Mutant(
        "D10",
        "a refusal does not say when to try again",
        "server/transport/status.py",
        "    trailers = _retry_pushback(error) if isinstance(error, errors.Overloaded) else ()\n",
        "    trailers = ()\n",
        ("test_three_times_the_load_leaves_the_goodput",),
    ),
    Mutant(
        "D11",
        "the time left of a call follows the wall clock",
        "server/transport/completion_queue.py",
        "    def time_left_s(self) -> float | None:\n"
        '        """Seconds until the client\'s deadline, or the server\'s default."""\n'
        "        if self._deadline_s < _NO_DEADLINE_S:\n"
        "            return float(self._deadline_s - time.monotonic())\n",
        "    _day_s = time.time() - time.monotonic()\n"
        "\n"
        "    def time_left_s(self) -> float | None:\n"
        '        """Seconds until the client\'s deadline, or the server\'s default."""\n'
        "        if self._deadline_s < _NO_DEADLINE_S:\n"
        "            return float(self._deadline_s + self._day_s - time.time())\n",
        ("test_time_left_is_not_that_of_the_wall_clock",),
    ),
    Mutant(
        "D12",
        "the watchdog ends a process that stood still",
        "server/threads.py",
        "                self._turns.clear()\n",
        '                self._end(THREAD_STUCK, _stuck("all", late_s))\n',
        ("test_server_that_stood_still_runs_no_expired_request_and_goes_on",),
    ),
    Mutant(
        "F01",
        "health stays SERVING while the server stops",
        "server/app.py",
        "        self._health.stop()\n",
        "        self._health.handlers()\n",
        ("test_sigterm_under_load_loses_no_accepted_request",),
    ),
    Mutant(
        "F02",
        "a stop is drained if any of its parts is",
        "server/app.py",
        '        logger.info("server stopped drained=%s", all(are_drained))\n',
        '        logger.info("server stopped drained=%s", any(are_drained))\n',
        ("test_request_longer_than_the_grace_is_given_up",),
    ),
    Mutant(
        "F04",
        "the server is ready before its models are",
        "server/app.py",
        "        return self._repository.is_ready and self._watchdog.is_healthy\n",
        "        return self._watchdog.is_healthy\n",
        ("test_listens_before_models_are_loaded",),
    ),
    Mutant(
        "F05",
        "the memory watermark is ignored",
        "server/scheduling/memory_watermark.py",
        "        if not self.is_high and share >= watermark:\n",
        "        if not self.is_high and share >= 100 * watermark:\n",
        ("test_burst_of_large_messages_is_refused_before_the_memory_limit",),
    ),
    Mutant(
        "F06",
        "a run that lacks memory is taken for a bug",
        "server/runtime/session.py",
        "    if _OUT_OF_MEMORY.search(message):\n",
        "    if not message:\n",
        ("test_run_without_enough_memory_fails_alone_and_the_session_serves_on",),
    ),
    Mutant(
        "F07",
        "an error after which the GPU takes no work fails its run only",
        "server/runtime/session.py",
        '        if self.provider == "cuda" and _DEVICE_LOST.search(str(error)):\n',
        '        if self.provider == "cuda" and not str(error):\n',
        ("test_lost_device_ends_the_process",),
    ),
    Mutant(
        "F09",
        "the child of the load sandbox outlives its server",
        "server/repository/load_sandbox.py",
        "    os.read(0, 1)\n    os._exit(1)\n",
        "    os.read(0, 1)\n",
        ("test_child_ends_with_the_process_that_started_it",),
    ),
    Mutant(
        "F12",
        "no descriptor is kept for scrapes",
        "server/telemetry/metrics_http.py",
        "_RESERVE = 4\n",
        "_RESERVE = 0\n",
        (
            "test_few_descriptors_leave_room_for_scrapes_and_the_server_recovers",
            "test_scrape_is_answered_without_a_free_descriptor",
        ),
    ),
    Mutant(
        "F15",
        "the watchdog waits a fiftieth of its timeout",
        "server/threads.py",
        "        interval_s = self._timeout_s / _LOOKS\n",
        "        interval_s = self._timeout_s / 50 / _LOOKS\n",
        ("test_server_whose_cores_others_use_loses_no_request",),
    ),
    Mutant(
        "F16",
        "unknown settings are ignored",
        "server/config.py",
        '    """The server\'s configuration."""\n'
        "\n"
        '    model_config = ConfigDict(frozen=True, extra="forbid")\n',
        '    """The server\'s configuration."""\n'
        "\n"
        '    model_config = ConfigDict(frozen=True, extra="ignore")\n',
        ("test_wrong_configuration_ends_the_start_and_names_the_key",),
    ),
    Mutant(
        "F17",
        "a stop leaves its connections to core, which ends late calls with CANCELLED",
        "server/transport/completion_queue.py",
        "        self.connections.end()\n        self._is_stopping = True\n",
        "        self._is_stopping = True\n",
        ("test_stop_ends_no_call_with_cancelled",),
    ),
    Mutant(
        "G04",
        "tokens are compared without case",
        "server/access/tokens.py",
        'hashlib.sha256(presented.strip(" ").encode())',
        'hashlib.sha256(presented.strip(" ").lower().encode())',
        ("test_wrong_token_is_refused_without_a_hint",),
    ),
    Mutant(
        "G05",
        "a method without a kind needs no token that has it",
        "server/access/authorization.py",
        "        if kind is None and method not in self._served:\n",
        "        if kind is None:\n",
        ("test_served_method_without_a_kind_is_denied_for_every_token",),
    ),
    Mutant(
        "G06",
        "a malformed tokens file removes the tokens in use",
        "server/access/tokens.py",
        "        entries = _parsed(contents[0])\n",
        "        self._tokens = _Tokens()\n        entries = _parsed(contents[0])\n",
        ("test_certificates_and_tokens_are_replaced_under_load",),
    ),
    Mutant(
        "G07",
        "a stuck thread does not change readiness",
        "server/app.py",
        "        return self._repository.is_ready and self._watchdog.is_healthy\n",
        "        return self._repository.is_ready\n",
        ("test_thread_that_no_longer_turns_ends_the_process",),
    ),
    Mutant(
        "G08",
        "a refusal shows the unknown token in the log",
        "server/access/authorization.py",
        '            self._refusals.write("token", peer=headers.peer, method=method)\n',
        '            self._refusals.write("token", token=str(headers.metadata), method=method)\n',
        ("test_refusals_are_logged_without_token_or_payload",),
    ),
    Mutant(
        "H02",
        "a header bomb is refused, and its connection stays open",
        "server/transport/connections.py",
        "        return size_bytes > _ATTACK * self.metadata_limit\n",
        "        return size_bytes > 100_000 * _ATTACK * self.metadata_limit\n",
        ("test_header_bomb_ends_its_connection_and_harms_nobody",),
    ),
    Mutant(
        "H03",
        "the death of a thread is swallowed",
        "server/threads.py",
        "            _died(self.name, error)\n",
        "            del error\n",
        ("test_dead_io_thread_ends_the_process",),
    ),
    Mutant(
        "H04",
        "a request is queued although it cannot be answered in time",
        "server/scheduling/request_queue.py",
        "        if answered_s > usable_s:\n",
        "        if answered_s > 1e9 * usable_s:\n",
        ("test_what_cannot_be_answered_in_time_is_refused_at_arrival",),
    ),
    Mutant(
        "H05",
        "a call without a message is never late",
        "server/transport/open_calls.py",
        "            if deadline_s > now:\n",
        "            if deadline_s > 0:\n",
        ("test_call_without_a_message_ends_at_the_default_deadline",),
    ),
    Mutant(
        "H08",
        "the pixels of a request have no limit",
        "server/preprocessing/images.py",
        "    if pixels > MAX_REQUEST_PIXELS:\n",
        "    if pixels > 1000 * MAX_REQUEST_PIXELS:\n",
        ("test_request_of_too_many_pixels_is_refused_before_one_is_decompressed",),
    ),
    Mutant(
        "H10",
        "the limit of connections by peer is not kept",
        "server/transport/connections.py",
        "        if counts[address[0]] > limit:\n",
        "        if counts[address[0]] > 1000 * limit:\n",
        ("test_connections_of_one_peer_are_limited",),
    ),
)
