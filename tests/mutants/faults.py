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
        "D08",
        "requests are taken in the reverse order of their deadlines",
        "server/scheduling/deadline_order.py",
        "    return keyed[0]\n",
        "    return -keyed[0]\n",
        ("test_urgent_calls_pass_patient_ones", "test_a_shorter_limit_goes_first"),
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
