"""Any bytes are a table or a TableError."""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from weir.bundle.csv_table import read_table
from weir.bundle.errors import TableError

CELLS = st.sampled_from(
    ["", "1", "1,5", "1.5", "1.234", '"', '"a;b"', " x ", "2024-01", "1/2/2024", "1.2.24", "nan"]
)
ROWS = st.lists(CELLS, max_size=4)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ROWS, max_size=6),
    st.sampled_from([";", ",", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
)
def test_any_table_is_read_or_refused(
    rows: list[list[str]], delimiter: str, end: str, encoding: str
) -> None:
    text = end.join(delimiter.join(row) for row in rows)

    use(text.encode(encoding))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    use(content)


def use(content: bytes) -> None:
    """Ask a table for all that it has; other errors than its own fail the test."""
    with suppress(TableError):
        table = read_table(content, "data.csv")
        for name in table.value_columns:
            assert len(table.numbers(name)) > 0
        if table.dates is not None:
            assert len(table.dates.following(2)) == 2
