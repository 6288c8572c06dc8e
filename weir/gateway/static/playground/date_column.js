/**
 * Dates of a series, and those that follow by its own step. No DOM.
 *
 * It reads the formats of `weir forecast` that are most usual, one for the whole column:
 *
 *     2024-02-01, 2024/02/01, 20240201, 1.2.2024    days; a time may follow, as in 2024-02-01 13:30
 *     1/2/2024, 1-2-2024                            day first or month first, as the column decides
 *     1 Feb 2024, Feb 1, 2024                       English names of months
 *     2024-02, 02/2024, Feb 2024                    months
 *     2024-Q1, Q1 2024                              quarters
 *     2024-W05                                      weeks of ISO 8601
 *     2024                                          years that rise by one
 *
 * A date is a number: the milliseconds of its wall-clock time, as if it were UTC.
 */

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAY_MS = 86_400_000;

const TIME = String.raw`(?:[T ]\s*(?<hour>\d{1,2}):(?<minute>\d\d)(?::(?<second>\d\d)(?:\.\d+)?)?(?<zone>Z|[+-]\d\d:?\d\d)?)?`;
const NAME = String.raw`(?<name>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?`;
const YEAR = String.raw`(?<year>\d{4})`;
const DAY_FIRST = pattern(String.raw`(?<day>\d{1,2})(?<mark>[/-])(?<month>\d{1,2})\k<mark>${YEAR}${TIME}`);
const MONTH_FIRST = pattern(String.raw`(?<month>\d{1,2})(?<mark>[/-])(?<day>\d{1,2})\k<mark>${YEAR}${TIME}`);
const RISING_YEAR = pattern(String.raw`(?<year>[12]\d{3})`);
const FORMATS = [
  String.raw`${YEAR}(?<mark>[-/.])(?<month>\d{1,2})\k<mark>(?<day>\d{1,2})${TIME}`,
  String.raw`${YEAR}(?<month>\d\d)(?<day>\d\d)`,
  String.raw`(?<day>\d{1,2})\.\s?(?<month>\d{1,2})\.\s?${YEAR}${TIME}`,
  String.raw`${YEAR}[-/](?<month>\d{1,2})`,
  String.raw`(?<month>\d\d)[/.-]${YEAR}`,
  String.raw`${NAME}[ -]${YEAR}`,
  String.raw`(?<day>\d{1,2})[ -]${NAME}[ -]${YEAR}${TIME}`,
  String.raw`${NAME} (?<day>\d{1,2}),? ${YEAR}${TIME}`,
  String.raw`${YEAR}[- ]?Q(?<quarter>[1-4])`,
  String.raw`Q(?<quarter>[1-4])[-/ ]?${YEAR}`,
  String.raw`${YEAR}-?W(?<week>\d\d)`,
].map(pattern);

/**
 * The dates of a column.
 *
 * @param texts one a row, the oldest first.
 * @returns `{unit, dates, doubt}`; `doubt` says why the order of day and month is not known. Null if
 *   a text is no date, or the formats differ.
 */
export function readDates(texts) {
  if (texts.length < 2) return null;
  for (const format of FORMATS) {
    const read = readAll(format, texts);
    if (read) return { ...read, doubt: "" };
  }
  const years = readAll(RISING_YEAR, texts);
  if (years) return years.dates.every((date, at) => at === 0 || yearOf(date) === yearOf(years.dates[at - 1]) + 1) ? { ...years, doubt: "" } : null;
  return readEitherOrder(texts);
}

/**
 * The dates after the last one, by the step that all dates follow.
 *
 * @returns `{dates, problem}`; `dates` is null if there is no such step, and `problem` says why.
 */
export function followingDates({ dates, unit, doubt }, count) {
  if (doubt) return { dates: null, problem: doubt };
  const step = stepOf(dates);
  if (!step) return { dates: null, problem: "the dates do not follow at equal steps" };
  const following = [];
  let date = dates.at(-1);
  for (let at = 0; at < count; at += 1) {
    date = step(date);
    if (date === null) return { dates: null, problem: `no date comes after ${showDate(dates.at(-1), unit)}` };
    following.push(date);
  }
  return { dates: following, problem: "" };
}

/** A date in ISO 8601, as exact as its column. */
export function showDate(date, unit) {
  const text = new Date(date).toISOString();
  switch (unit) {
    case "year":
      return text.slice(0, 4);
    case "quarter":
      return `${text.slice(0, 4)}-Q${Math.floor(monthOf(date) / 3) + 1}`;
    case "month":
      return text.slice(0, 7);
    case "week":
      return isoWeek(date);
    case "day":
      return text.slice(0, 10);
    default:
      return text.slice(0, date % 60_000 === 0 ? 16 : 19);
  }
}

function pattern(source) {
  return new RegExp(`^${source}$`, "i");
}

function readEitherOrder(texts) {
  const orders = [DAY_FIRST, MONTH_FIRST].map((order) => readAll(order, texts)).filter(Boolean);
  if (orders.length < 2) return orders.length === 0 ? null : { ...orders[0], doubt: "" };
  const [day, month] = orders;
  if (day.dates.every((date, at) => date === month.dates[at])) return { ...day, doubt: "" };
  const stepped = orders.filter((order) => stepOf(order.dates));
  const rising = orders.filter((order) => order.dates.every((date, at) => at === 0 || date > order.dates[at - 1]));
  const likely = stepped.length > 0 ? stepped : rising;
  if (likely.length === 1) return { ...likely[0], doubt: "" };
  return { ...day, doubt: `${texts[0]} may have the day or the month first; write dates as ${showDate(day.dates[0], "day")}` };
}

function readAll(format, texts) {
  const units = new Set();
  const zones = new Set();
  const dates = [];
  for (const text of texts) {
    const parts = format.exec(text)?.groups;
    const date = parts ? dateOf(parts) : null;
    if (date === null) return null;
    units.add(unitOf(parts));
    zones.add(parts.zone ?? "");
    dates.push(date);
  }
  if (zones.size > 1) return null;
  // A program may leave out midnight.
  return { unit: units.has("time") ? "time" : [...units][0], dates };
}

function unitOf({ hour, day, month, name, quarter, week }) {
  if (hour) return "time";
  if (day) return "day";
  if (month || name) return "month";
  if (quarter) return "quarter";
  return week ? "week" : "year";
}

/** The date of a match; null if the calendar has none such. */
function dateOf({ year, month, name, day, quarter, week, hour, minute, second }) {
  if (week) return weekStart(Number(year), Number(week));
  const monthAt = name ? MONTHS.indexOf(name.toLowerCase()) : quarter ? 3 * (Number(quarter) - 1) : Number(month ?? 1) - 1;
  const [hours, minutes, seconds] = [hour, minute, second].map((part) => Number(part ?? 0));
  if (hours > 23 || minutes > 59 || seconds > 59) return null;
  const start = calendarDay(Number(year), monthAt, Number(day ?? 1));
  return start === null ? null : start + 1000 * (seconds + 60 * (minutes + 60 * hours));
}

/** A day of the calendar; null for the 30th of February. */
function calendarDay(year, month, day) {
  const date = new Date(0);
  // Date.UTC would take the year 24 for 1924.
  date.setUTCFullYear(year, month, day);
  const isSame = date.getUTCMonth() === month && date.getUTCDate() === day;
  return isSame && year > 0 && year <= 9999 ? date.getTime() : null;
}

/** The Monday of a week of ISO 8601: the first week has the 4th of January. */
function weekStart(year, week) {
  const fourth = calendarDay(year, 0, 4);
  const monday = fourth - DAY_MS * weekdayOf(fourth) + 7 * DAY_MS * (week - 1);
  return isoWeek(monday) === `${String(year).padStart(4, "0")}-W${String(week).padStart(2, "0")}` ? monday : null;
}

function isoWeek(date) {
  const thursday = date + DAY_MS * (3 - weekdayOf(date));
  const year = yearOf(thursday);
  const week = Math.floor((thursday - calendarDay(year, 0, 1)) / (7 * DAY_MS)) + 1;
  return `${String(year).padStart(4, "0")}-W${String(week).padStart(2, "0")}`;
}

/** The step that all dates follow, as a function from a date to the next; null if there is none. */
function stepOf(dates) {
  const months = 12 * (yearOf(dates[1]) - yearOf(dates[0])) + monthOf(dates[1]) - monthOf(dates[0]);
  const span = dates[1] - dates[0];
  const steps = [(date) => later(date, months, false), (date) => later(date, months, true), (date) => bounded(date + span)];
  if (dates.every((date) => weekdayOf(date) < 5)) steps.push((date) => bounded(date + DAY_MS * (weekdayOf(date) === 4 ? 3 : 1)));
  const usable = steps.filter((_, at) => (at < 2 ? months > 0 : at > 2 || span > 0));
  return usable.find((step) => dates.every((date, at) => at === 0 || step(dates[at - 1]) === date)) ?? null;
}

/** The same day some months later, or the last day of that month. */
function later(date, months, isMonthEnd) {
  const count = 12 * yearOf(date) + monthOf(date) + months;
  const [year, month] = [Math.floor(count / 12), count % 12];
  const last = new Date(Date.UTC(2000 + (year % 400), month + 1, 0)).getUTCDate();
  const day = calendarDay(year, month, isMonthEnd ? last : new Date(date).getUTCDate());
  return day === null ? null : day + (((date % DAY_MS) + DAY_MS) % DAY_MS);
}

function bounded(date) {
  return yearOf(date) <= 9999 ? date : null;
}

function yearOf(date) {
  return new Date(date).getUTCFullYear();
}

function monthOf(date) {
  return new Date(date).getUTCMonth();
}

/** 0 for Monday. */
function weekdayOf(date) {
  return (new Date(date).getUTCDay() + 6) % 7;
}
