"""Date column of a table: its dates, and the step from one row to the next.

Formats, one for the whole column; a time may follow a day:

    2024-02-01, 2024/02/01, 20240201      year, month, day
    1.2.2024, 01.02.24                    day, month, year
    1/2/2024, 1-2-2024                    day first or month first, as the whole column decides
    1 Feb 2024, 1-Feb-24, Feb 1, 2024     English names of months, short or long
    2024-02, 02/2024, 02.2024, 2024M02, Feb 2024, Feb-24      months
    2024-Q1, Q1 2024                      quarters
    2024-W05                              weeks of ISO 8601
    2024                                  years, if the column rises by one each row

With slashes and hyphens, a number above 12 decides the order; without one, the order in which the
dates rise by equal steps, or at least rise. If both orders do, or none, the dates are in doubt.
Years of two digits are those from 1969 to 2068.
"""

import calendar
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Literal, TypeAlias

from weir.bundle.errors import TableError
from weir.bundle.number_format import Cell

Unit: TypeAlias = Literal["year", "quarter", "month", "week", "day", "time"]

_MONTHS = [name[:3].lower() for name in calendar.month_name[1:]]
_MONTH_NAME = r"(?P<name>[A-Za-z]{3,9})\.?"
_TIME = (
    r"(?:[T ,]\s*(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?(?:\s*(?P<zone>Z|[+-]\d\d:?\d\d))?)?"
)
_YEAR, _ANY_YEAR = r"(?P<year>\d{4})", r"(?P<year>\d{4}|\d{2})"
_MONTH, _DAY = r"(?P<month>\d{1,2})", r"(?P<day>\d{1,2})"
_DAY_FIRST = re.compile(rf"{_DAY}(?P<mark>[/-]){_MONTH}(?P=mark){_ANY_YEAR}{_TIME}")
_MONTH_FIRST = re.compile(rf"{_MONTH}(?P<mark>[/-]){_DAY}(?P=mark){_ANY_YEAR}{_TIME}")
_FORMATS = [
    re.compile(pattern)
    for pattern in (
        rf"{_YEAR}(?P<mark>[-/.]){_MONTH}(?P=mark){_DAY}{_TIME}",
        rf"{_YEAR}(?P<month>\d\d)(?P<day>\d\d)",
        rf"{_DAY}\.\s?{_MONTH}\.\s?{_ANY_YEAR}{_TIME}",
        rf"{_YEAR}[-/]{_MONTH}",
        rf"{_YEAR}-?M(?P<month>\d\d)",
        rf"(?P<month>\d\d)[/.-]{_YEAR}",
        rf"{_MONTH_NAME}[ -]{_ANY_YEAR}",
        rf"{_YEAR}[ -]{_MONTH_NAME}",
        rf"{_DAY}[ -]{_MONTH_NAME}[ -]{_ANY_YEAR}{_TIME}",
        rf"{_MONTH_NAME} {_DAY},? {_YEAR}{_TIME}",
        rf"{_YEAR}[- ]?Q(?P<quarter>[1-4])",
        rf"Q(?P<quarter>[1-4])[-/ ]?{_YEAR}",
        rf"{_YEAR}-?W(?P<week>\d\d)",
    )
]
_RISING_YEAR = re.compile(r"(?P<year>[12]\d{3})(?:\.0)?")


@dataclass(frozen=True, slots=True)
class Step:
    """The step from one date to the next: a number of months, of weekdays, or a time."""

    months: int = 0
    is_month_end: bool = False
    weekdays: bool = False
    span: timedelta = timedelta()

    def after(self, date: datetime) -> datetime:
        """The next date."""
        if self.weekdays:
            return date + timedelta(days=3 if date.weekday() == 4 else 1)
        if not self.months:
            return date + self.span
        years, month = divmod(date.month - 1 + self.months, 12)
        first = date.replace(year=date.year + years, month=month + 1, day=1)
        return first.replace(day=_month_days(first) if self.is_month_end else date.day)

    def __str__(self) -> str:
        """The step in words, such as `3 months`."""
        if self.weekdays:
            return "1 weekday"
        if self.months % 12 == 0 and self.months:
            return _count(self.months // 12, "year")
        if self.months:
            return _count(self.months, "month")
        for unit, span in (
            ("week", timedelta(weeks=1)),
            ("day", timedelta(days=1)),
            ("hour", timedelta(hours=1)),
            ("minute", timedelta(minutes=1)),
        ):
            if self.span % span == timedelta():
                return _count(self.span // span, unit)
        return f"{self.span.total_seconds():g} seconds"


@dataclass(frozen=True, slots=True)
class DateColumn:
    """The dates of a table, one a row.

    doubt: why the order of day and month is not known, or "".
    """

    name: str
    unit: Unit
    dates: tuple[datetime, ...]
    cells: tuple[Cell, ...]
    doubt: str = ""

    def step(self) -> Step:
        """The step that all dates follow; TableError says why there is none."""
        if self.doubt:
            raise TableError(self.doubt)
        step, followers = _best_step(self.dates)
        if step is None or followers * 2 < len(self.dates) - 1:
            raise TableError(f"the dates of column {self.name} do not follow at equal steps")
        for cell, (before, date) in zip(self.cells[1:], pairwise(self.dates), strict=True):
            if not _follows(step, before, date):
                raise TableError(
                    f"{cell.place}, column {self.name}: expected a date {step} after "
                    f"{self.show(before)}, got {self.show(date)}"
                )
        return step

    def following(self, count: int) -> list[datetime]:
        """The next dates after the last row; errors as `step`."""
        step, date, dates = self.step(), self.dates[-1], []
        for _ in range(count):
            try:
                date = step.after(date)
            except (OverflowError, ValueError) as error:
                raise TableError(f"no date comes after {self.show(date)}") from error
            dates.append(date)
        return dates

    def show(self, date: datetime) -> str:
        """A date in ISO 8601, as exact as the column."""
        match self.unit:
            case "year":
                return f"{date.year:04d}"
            case "quarter":
                return f"{date.year:04d}-Q{(date.month + 2) // 3}"
            case "month":
                return f"{date.year:04d}-{date.month:02d}"
            case "week":
                year, week, _ = date.isocalendar()
                return f"{year:04d}-W{week:02d}"
            case "day":
                return date.date().isoformat()
        return date.isoformat(timespec="auto" if date.second or date.microsecond else "minutes")


def read_dates(name: str, cells: Sequence[Cell]) -> DateColumn | None:
    """The dates of a column; None if a cell is no date, or the formats differ."""
    if len(cells) < 2:
        return None
    texts, cells = [cell.text for cell in cells], tuple(cells)
    for pattern in _FORMATS:
        if (read := _read_all(pattern, texts)) is not None:
            return DateColumn(name, *read, cells)
    if (read := _read_all(_RISING_YEAR, texts)) is not None:
        unit, dates = read
        rises = all(date.year == before.year + 1 for before, date in pairwise(dates))
        return DateColumn(name, unit, dates, cells) if rises else None
    return _read_either_order(name, texts, cells)


def is_date(text: str) -> bool:
    """Whether a cell is a date of any format, but a year."""
    return any(_read_one(pattern, text) for pattern in (*_FORMATS, _DAY_FIRST, _MONTH_FIRST))


def _read_either_order(
    name: str, texts: Sequence[str], cells: tuple[Cell, ...]
) -> DateColumn | None:
    found = {
        order: read
        for order, pattern in (("day", _DAY_FIRST), ("month", _MONTH_FIRST))
        if (read := _read_all(pattern, texts)) is not None
    }
    if not found:
        return None
    if len(found) == 2 and found["day"] != found["month"]:
        likely = [
            {order: read for order, read in found.items() if is_likely(read[1])}
            for is_likely in (_has_equal_steps, _rises)
        ]
        decided = next((each for each in likely if len(each) == 1), None)
        if decided is None or len(likely[0]) == 2:
            doubt = (
                f"{cells[0].place}, column {name}: {texts[0]} may have the day or the month first; "
                f"write dates as {found['day'][1][0].date()}"
            )
            return DateColumn(name, *found["day"], cells, doubt)
        found = decided
    return DateColumn(name, *next(iter(found.values())), cells)


def _read_all(
    pattern: re.Pattern[str], texts: Sequence[str]
) -> tuple[Unit, tuple[datetime, ...]] | None:
    units: set[Unit] = set()
    dates: list[datetime] = []
    for text in texts:
        if (read := _read_one(pattern, text)) is None:
            return None
        units.add(read[0])
        dates.append(read[1])
    if len({date.tzinfo is None for date in dates}) > 1:
        return None
    # A program may leave out midnight.
    return ("time" if "time" in units else units.pop()), tuple(dates)


def _read_one(pattern: re.Pattern[str], text: str) -> tuple[Unit, datetime] | None:
    found = pattern.fullmatch(text)
    if found is None:
        return None
    parts = found.groupdict()
    try:
        return _unit(parts), _date(parts)
    except (ValueError, OverflowError):
        return None


def _unit(parts: dict[str, str | None]) -> Unit:
    if parts.get("hour"):
        return "time"
    if parts.get("day"):
        return "day"
    if parts.get("month") or parts.get("name"):
        return "month"
    if parts.get("quarter"):
        return "quarter"
    return "week" if parts.get("week") else "year"


def _date(parts: dict[str, str | None]) -> datetime:
    year = int(parts["year"] or 0)
    if len(parts["year"] or "") == 2:
        year += 2000 if year < 69 else 1900
    if week := parts.get("week"):
        return datetime.fromisocalendar(year, int(week), 1)
    month = int(parts.get("month") or 1)
    if name := parts.get("name"):
        month = _month_of(name)
    elif quarter := parts.get("quarter"):
        month = 3 * int(quarter) - 2
    hour, fraction = int(parts.get("hour") or 0), (parts.get("fraction") or "")[:6]
    if half := parts.get("half"):
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + (12 if half in "pP" else 0)
    return datetime(
        year,
        month,
        int(parts.get("day") or 1),
        hour,
        int(parts.get("minute") or 0),
        int(parts.get("second") or 0),
        int(fraction.ljust(6, "0")),
        tzinfo=_zone(parts.get("zone")),
    )


def _month_of(name: str) -> int:
    month = _MONTHS.index(name[:3].lower()) + 1
    if len(name) > 4 and name.lower() != calendar.month_name[month].lower():
        raise ValueError(name)
    return month


def _zone(text: str | None) -> timezone | None:
    if not text:
        return None
    if text == "Z":
        return UTC
    sign = -1 if text[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(text[1:3]), minutes=int(text[-2:])))


def _has_equal_steps(dates: Sequence[datetime]) -> bool:
    step, followers = _best_step(dates)
    return step is not None and followers == len(dates) - 1


def _rises(dates: Sequence[datetime]) -> bool:
    return all(before < date for before, date in pairwise(dates))


def _best_step(dates: Sequence[datetime]) -> tuple[Step | None, int]:
    """The step that most dates follow, and how many do."""
    pairs = list(pairwise(dates))
    months = Counter(_months_between(before, date) for before, date in pairs)
    spans = Counter(date - before for before, date in pairs)
    usual = months.most_common(1)[0][0]
    steps = [Step(months=usual), Step(months=usual, is_month_end=True)] if usual > 0 else []
    longest = spans.most_common(1)[0][0]
    steps += [Step(span=longest)] if longest > timedelta() else []
    if longest == timedelta(days=1) and all(date.weekday() < 5 for date in dates):
        steps.append(Step(weekdays=True))
    counted = [(step, sum(_follows(step, *pair) for pair in pairs)) for step in steps]
    return max(counted, key=lambda each: each[1], default=(None, 0))


def _follows(step: Step, before: datetime, date: datetime) -> bool:
    try:
        return step.after(before) == date
    except (ValueError, OverflowError):
        return False


def _months_between(before: datetime, date: datetime) -> int:
    return 12 * (date.year - before.year) + date.month - before.month


def _month_days(date: datetime) -> int:
    return calendar.monthrange(date.year, date.month)[1]


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
