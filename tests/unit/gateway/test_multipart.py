import logging

import pytest

from weir.client.errors import InvalidArgument
from weir.gateway.multipart import Part, parse

TYPE = "multipart/form-data; boundary=b"
HEAD = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'


def test_parts_keep_their_order_names_and_bytes() -> None:
    body = (
        HEAD
        + b"a --b, \r\n -- and \0\xff\r\n"
        + b"--b\r\ncontent-disposition: FORM-DATA; name=top\r\nX: y\r\n\r\n5\r\n"
        + b'--b\r\nContent-Disposition: form-data; name="n\xc3\xa4me"\r\n\r\n\r\n'
        + b"--b--\r\nepilogue"
    )

    assert parse(body, TYPE, most_parts=3) == [
        Part("picture", b"a --b, \r\n -- and \0\xff"),
        Part("top", b"5"),
        Part("näme", b""),
    ]


def test_boundary_may_be_quoted() -> None:
    parts = parse(
        HEAD + b"x\r\n--b--", 'Multipart/Form-Data; charset=utf-8; boundary="b"', most_parts=1
    )

    assert parts == [Part("picture", b"x")]


def test_line_that_only_begins_like_the_boundary_is_content() -> None:
    content = b"\r\n--a\r\n-- b\r\n--\r\n" * 1000

    assert parse(HEAD + content + b"\r\n--b--", TYPE, most_parts=1)[0].content == content


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (HEAD + b"x\r\n--b--", "multipart/form-data", "with a boundary"),
        (HEAD + b"x\r\n--b--", "multipart/mixed; boundary=b", "with a boundary"),
        (HEAD + b"x\r\n--b--", f"multipart/form-data; boundary={'b' * 1000}", "Boundary length"),
        (b"", TYPE, "closing boundary"),
        (HEAD, TYPE, "closing boundary"),
        (HEAD + b"x\r\n--b", TYPE, "closing boundary"),
        (b"--c\r\n", TYPE, "expected multipart/form-data"),
        (b"--b\r\nno header\r\n\r\nx\r\n--b--", TYPE, "expected multipart/form-data"),
        (b"--b\r\n\r\nx\r\n--b--", TYPE, "expected parts with `Content-Disposition"),
        (
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
            TYPE,
            "expected parts with `Content-Disposition",
        ),
        (
            b"--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b--",
            TYPE,
            "got 'attachment; name=a'",
        ),
        (b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--", TYPE, "Maximum header size"),
        (b"--b\r\n" + b"X: y\r\n" * 1000 + b"\r\nx\r\n--b--", TYPE, "Maximum header count"),
        (HEAD + b"x\r\n" + HEAD + b"y\r\n" + HEAD + b"z\r\n--b--", TYPE, "at most 2 parts"),
        (HEAD + b"\r\n--bX" * 3 + b"\r\n--b--", TYPE, "at most 2 parts"),
    ],
    ids=[
        "no boundary",
        "another kind",
        "long boundary",
        "empty",
        "cut in a part",
        "cut in the end",
        "another boundary",
        "broken header",
        "no headers",
        "no name",
        "another disposition",
        "long header",
        "many headers",
        "many parts",
        "many lines that begin like the boundary",
    ],
)
def test_broken_form_is_refused(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse(body, content_type, most_parts=2)

    assert message in str(refusal.value)


def test_broken_form_is_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(InvalidArgument):
        parse(b"--c\r\n", TYPE, most_parts=2)

    assert not caplog.records
