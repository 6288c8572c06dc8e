"""Forms of `multipart/form-data` (RFC 7578): the parts of a body. No I/O.

The body is in memory, within the limits of all bodies, so no part goes to a disk.
"""

import logging
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from weir.client.errors import InvalidArgument

CONTENT_TYPE = "multipart/form-data"

_MOST_CHARACTERS = 80

# It warns of each broken form, and any client can send these. The answer says the same.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Part:
    """A field or a file of a form."""

    name: str
    content: bytes


def parse(body: bytes, content_type: str, *, most_parts: int) -> list[Part]:
    """The parts of a form, in their order.

    Args:
        content_type: the request's header, with the boundary.

    Raises:
        InvalidArgument: the body is no form, is cut short, or has more than `most_parts` parts.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind.decode("latin-1") != CONTENT_TYPE or not boundary:
        raise InvalidArgument("content-type: expected multipart/form-data with a boundary")
    # Each costs the parser a microsecond, and a body of 64 MiB holds ten million. RFC 2046 forbids
    # lines that begin like a boundary, so there is one for each part and one at the end.
    if body.count(b"\r\n--" + boundary) > most_parts:
        raise _too_many(most_parts)
    form = _Form(most_parts)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin,
                "on_header_field": form.header_name,
                "on_header_value": form.header_value,
                "on_header_end": form.header_end,
                "on_headers_finished": form.headers_finished,
                "on_part_data": form.data,
                "on_part_end": form.end_part,
                "on_end": form.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidArgument(f"form: expected multipart/form-data: {error}") from error
    if not form.is_complete:
        raise InvalidArgument("form: expected a closing boundary, got the end of the body")
    return form.parts


class _Form:
    """The state of one parse; its methods are the parser's callbacks."""

    def __init__(self, most_parts: int) -> None:
        self.parts: list[Part] = []
        self.is_complete = False
        self._most_parts = most_parts
        self._name = ""
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._content: list[bytes] = []

    def begin(self) -> None:
        if len(self.parts) == self._most_parts:
            raise _too_many(self._most_parts)
        self._disposition = b""
        self._content = []

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition.decode("latin-1"))
        if kind != b"form-data" or b"name" not in options:
            raise InvalidArgument(
                "form: expected parts with `Content-Disposition: form-data; name=…`, "
                f"got {self._disposition[:_MOST_CHARACTERS].decode('latin-1')!r}"
            )
        self._name = options[b"name"].decode("utf-8", "replace")

    def data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def end_part(self) -> None:
        self.parts.append(Part(self._name, b"".join(self._content)))

    def end(self) -> None:
        self.is_complete = True


def _too_many(most_parts: int) -> InvalidArgument:
    return InvalidArgument(f"form: expected at most {most_parts} parts, got more")
