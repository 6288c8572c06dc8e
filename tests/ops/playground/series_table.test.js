import assert from "node:assert/strict";
import { test } from "node:test";

import { showDate } from "./static/playground/date_column.js";
import { modelColumns, readTable, SeriesError } from "./static/playground/series_table.js";

const ONE = { target: "sales", exogenous: [] };
const TWO = { target: "sales", exogenous: ["price"] };

const columns = (text, series) => modelColumns(readTable(text), series).columns;

for (const [name, text] of Object.entries({
  "one a line": "1\n2.5\n-3e2\n",
  "with blank lines and spaces": "\r\n 1 \r\n\r\n2.5\r\n-3e2",
  "on one line, commas": "1, 2.5, -3e2",
  "on one line, spaces": "1 2.5 -3e2",
  "decimal commas": "1\n2,5\n-300",
  "with a header": "sales\n1\n2.5\n-300",
  "with another header": "turnover\n1\n2.5\n-300",
  "with a header and decimal commas": "sales\n1\n2,5\n-300",
  "with dates": "2024-01-01,1\n2024-01-02,2.5\n2024-01-03,-300",
  "with semicolons": "day;sales\n1.1.2024;1\n2.1.2024;2,5\n3.1.2024;-300",
  "with tabs": "day\tsales\n2024-01\t1\n2024-02\t2,5\n2024-03\t-300",
  "quoted": '"day","sales"\n"Jan 1, 2024","1"\n"Jan 2, 2024","2.5"\n"Jan 3, 2024","-300"',
  "among other columns": "day,note,sales\n2024-01-01,a,1\n2024-01-02,b,2.5\n2024-01-03,,-300",
})) {
  test(`numbers ${name}`, () => assert.deepEqual(columns(text, ONE), { sales: [1, 2.5, -300] }));
}

test("several columns by name, in any order", () => {
  assert.deepEqual(columns("price,day,sales\n9,2024-01-01,1\n8,2024-01-02,2", TWO), { sales: [1, 2], price: [9, 8] });
});

test("several columns without names, in the model's order", () => {
  assert.deepEqual(columns("1.0,9\n2.0,8", TWO), { sales: [1, 2], price: [9, 8] });
});

test("a column of another name is taken, and said", () => {
  assert.equal(modelColumns(readTable("turnover\n1\n2"), ONE).remark, "turnover is taken for the model's sales");
  assert.equal(modelColumns(readTable("Sales\n1\n2"), ONE).remark, "");
});

test("dates are found beside the values", () => {
  const { dates } = readTable("sales,Month\n1,2024-01\n2,2024-02");

  assert.equal(dates.name, "Month");
  assert.deepEqual(dates.dates.map((date) => showDate(date, dates.unit)), ["2024-01", "2024-02"]);
});

test("years alone are values", () => {
  assert.deepEqual(columns("1949\n1950\n1951", ONE), { sales: [1949, 1950, 1951] });
});

for (const [text, series, message] of [
  ["", ONE, /got no text/],
  [" \n ", ONE, /got no text/],
  ["sales", ONE, /expected rows below the header/],
  ["sales\n1\nx", ONE, /line 3, sales: expected a number, got “x”/],
  ["day,sales\n2024-01-01,1\n2024-01-02,", ONE, /line 3, sales: expected a number, got an empty cell/],
  ["sales\n1\n1e999", ONE, /line 3, sales: expected a number/],
  ["sales,price\n1,2\n3", TWO, /line 3: expected 2 columns/],
  ["a,b\n1,2\n3,4", ONE, /expected the columns sales, got a, b/],
  ["sales\n1\n2", TWO, /expected the columns sales, price, got sales/],
  ["1,2,3\n4,5,6", TWO, /got 3 without names/],
]) {
  test(`refused: ${JSON.stringify(text)}`, () => {
    assert.throws(() => columns(text, series), (error) => error instanceof SeriesError && message.test(error.message));
  });
}
