/**
 * A pasted series as columns of numbers, with its dates. No DOM.
 *
 * Rules:
 *
 * 1. Numbers alone, one a line or all on one line, are one column.
 * 2. Otherwise the text is CSV. Its first line has the columns' names if a cell of it is neither a
 *    number nor a date.
 * 3. Tab, semicolon or comma separates the columns: the first of them that is in the first line.
 * 4. A comma is the decimal mark where it does not separate columns, and if each line is a number
 *    with at most one comma.
 * 5. The first column of dates has the dates of the rows.
 */

import { readDates } from "./date_column.js";

const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i;
const DELIMITERS = ["\t", ";", ","];

/** A text that is no series; the message says where. */
export class SeriesError extends Error {}

/**
 * @returns `{names, rows, dates}`: names are empty without a header line; `rows` are
 *   `{line, cells}`; `dates` is what `readDates` returns, and the column's place, or null.
 */
export function readTable(text) {
  const lines = text.split(/\r\n|\r|\n/).map((content, at) => ({ line: at + 1, content: content.trim() })).filter(({ content }) => content);
  if (lines.length === 0) throw new SeriesError("expected a series, got no text");
  const list = numbersOnOneLine(lines);
  if (list) return { names: [""], rows: list.map((cell) => ({ line: lines[0].line, cells: [cell] })), dates: null };
  const delimiter = DELIMITERS.find((each) => lines[0].content.includes(each) && !isDecimalComma(each, lines)) ?? null;
  const [first, ...others] = lines.map(({ line, content }) => ({ line, cells: delimiter ? cells(content, delimiter) : [unquoted(content)] }));
  const isHeader = !first.cells.every((cell) => isNumber(cell) || isDate(cell));
  const names = isHeader ? first.cells : first.cells.map(() => "");
  const rows = isHeader ? others : [first, ...others];
  if (rows.length === 0) throw new SeriesError("expected rows below the header line, got none");
  for (const { line, cells: found } of rows) {
    if (found.length !== names.length) throw new SeriesError(`line ${line}: expected ${names.length} columns as in the first line, got ${found.length}`);
  }
  return { names, rows, dates: dateColumn(names, rows) };
}

/**
 * The numbers that a model reads.
 *
 * @param series the contract's: `target` and `exogenous` are the columns.
 * @returns `{columns, remark}`: numbers by the model's names of the columns.
 */
export function modelColumns(table, { target, exogenous }) {
  const wanted = [target, ...(exogenous ?? [])];
  const others = table.names.map((_, at) => at).filter((at) => at !== table.dates?.at);
  const found = wanted.map((name) => table.names.indexOf(name));
  const missing = wanted.filter((_, at) => found[at] < 0);
  if (missing.length === 0) return { columns: numbers(table, wanted, found), remark: "" };
  const hasNames = table.names.some(Boolean);
  if (others.length === wanted.length && (!hasNames || wanted.length === 1)) {
    const name = table.names[others[0]];
    const isSame = !hasNames || name.toLowerCase() === target.toLowerCase();
    const remark = isSame ? "" : `${name} is taken for the model's ${target}`;
    return { columns: numbers(table, wanted, others), remark };
  }
  const got = hasNames ? others.map((at) => table.names[at]).join(", ") : `${others.length} without names`;
  throw new SeriesError(`expected the columns ${wanted.join(", ")}, got ${got}; name them in the first line`);
}

function numbers(table, wanted, places) {
  return Object.fromEntries(wanted.map((name, at) => [name, table.rows.map((row) => parseNumber(row, places[at], name))]));
}

function parseNumber({ line, cells: found }, at, name) {
  const text = found[at].replace(",", ".");
  if (!NUMBER.test(text) || !Number.isFinite(Number(text))) {
    throw new SeriesError(`line ${line}, ${name}: expected a number, got ${found[at] ? `“${found[at]}”` : "an empty cell"}`);
  }
  return Number(text);
}

/** Numbers of one line, between commas, semicolons or spaces; null if it is no such line. */
function numbersOnOneLine(lines) {
  if (lines.length !== 1) return null;
  const found = lines[0].content.split(/[\s,;]+/).filter(Boolean);
  return found.every((text) => NUMBER.test(text)) ? found : null;
}

/** Whether a comma only separates decimals: every line has at most one, within a number. */
function isDecimalComma(delimiter, lines) {
  return delimiter === "," && lines.every(({ content }) => /^[+-]?\d+(?:,\d+)?$/.test(content));
}

function dateColumn(names, rows) {
  for (let at = 0; at < names.length; at += 1) {
    const texts = rows.map((row) => row.cells[at]);
    // The only column holds the values: 1949, 1950, 1951 are then numbers.
    const dates = names.length > 1 ? readDates(texts) : null;
    if (dates) return { ...dates, at, name: names[at] || "date" };
  }
  return null;
}

function isNumber(text) {
  return NUMBER.test(text.replace(",", "."));
}

function isDate(text) {
  return readDates([text, text]) !== null;
}

/** The cells of a line; a quoted one may hold the delimiter, and "" for a quote. */
function cells(content, delimiter) {
  const found = [];
  let cell = "";
  let isQuoted = false;
  for (const character of content) {
    if (character === '"') isQuoted = !isQuoted;
    if (character === delimiter && !isQuoted) {
      found.push(cell);
      cell = "";
    } else {
      cell += character;
    }
  }
  return [...found, cell].map((text) => unquoted(text.trim()));
}

function unquoted(text) {
  return /^".*"$/.test(text) ? text.slice(1, -1).replaceAll('""', '"') : text;
}
