/** forecasting: a pasted series, its chart with forecast, interval and dates, and the values. */

import { postJson } from "../api.js";
import { element, replace } from "../dom.js";
import { callSnippets } from "./call_snippets.js";
import { callStatus } from "./call_status.js";
import { forecastCall } from "./call_texts.js";
import { followingDates, showDate } from "./date_column.js";
import { forecastChart, shortNumber } from "./forecast_chart.js";
import { modelColumns, readTable, SeriesError } from "./series_table.js";

const MIN_STEPS_SHOWN = 60;
const STEPS_SHOWN_PER_FORECAST = 5;

/** @returns the function that ends its calls, as each part of the playground. */
export function mount(container, model) {
  const series = model.contract.series;
  const status = callStatus();
  const { result } = status;
  const snippets = callSnippets(model);
  const field = element("textarea", { id: "series", class: "field text-field series-field", rows: "10", spellcheck: "false", "aria-describedby": "series-hint" });
  const file = element("input", { id: "series-file", class: "file", type: "file", accept: ".csv,.txt,text/csv,text/plain", onchange: readFile });
  const horizon = element("input", { id: "horizon", class: "field", type: "number", min: 1, max: series.horizon, step: 1, value: series.horizon, required: true });
  let chart = null;

  async function readFile() {
    if (file.files.length > 0) field.value = await file.files[0].text();
  }

  function submit(event) {
    event.preventDefault();
    let table;
    let read;
    try {
      table = readTable(field.value);
      read = modelColumns(table, series);
    } catch (error) {
      if (!(error instanceof SeriesError)) throw error;
      status.fail(error.message);
      return;
    }
    const dates = table.dates;
    // The server reads the last ones only.
    const last = (values) => values.slice(-series.lags);
    const columns = Object.fromEntries(Object.entries(read.columns).map(([name, values]) => [name, last(values)]));
    const body = { columns, horizon: horizon.valueAsNumber };
    const shownDates = dates && !dates.doubt ? last(dates.dates).map((date) => showDate(date, dates.unit)) : null;
    snippets.show((place) => forecastCall(place, model.name, { ...body, dates: shownDates }));
    status.run(
      (signal) => postJson(`/v1/models/${encodeURIComponent(model.name)}:forecast`, body, { signal }),
      (answer) => {
        show(read, dates, answer);
        return `version ${answer.version}`;
      },
    );
  }

  function show(read, dates, forecast) {
    const count = forecast.values.length;
    const following = dates ? followingDates(dates, count) : { dates: null, problem: "" };
    const values = read.columns[forecast.name];
    const shown = values.slice(-Math.max(MIN_STEPS_SHOWN, STEPS_SHOWN_PER_FORECAST * count));
    const ahead = following.dates?.map((date) => showDate(date, dates.unit)) ?? forecast.values.map((_, at) => `+${at + 1}`);
    const past = following.dates
      ? dates.dates.slice(-shown.length).map((date) => showDate(date, dates.unit))
      : shown.map((_, at) => String(at - shown.length + 1));
    chart?.stop();
    chart = forecastChart(shown, forecast, [...past, ...ahead]);
    const remarks = [read.remark, following.problem && `${following.problem}; steps are counted instead`].filter(Boolean);
    replace(
      result,
      chart.node,
      remarks.map((remark) => element("p", { class: "muted" }, `${remark}.`)),
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Forecast values" }, valueTable(forecast, ahead, following.dates ? dates.name : "Step")),
    );
  }

  const columns = [series.target, ...(series.exogenous ?? [])];
  const hint =
    columns.length === 1
      ? `Numbers of “${series.target}”, one a line, or CSV with a column of dates; the oldest first, ${series.lags} or more.`
      : `CSV with the columns ${columns.join(", ")}, and dates if there are; the oldest row first, ${series.lags} or more.`;
  container.append(
    element(
      "div",
      { class: "try" },
      element(
        "form",
        { class: "panel text-form", onsubmit: submit },
        element("label", { for: "series" }, "Series"),
        field,
        element("p", { id: "series-hint", class: "muted" }, hint),
        element(
          "div",
          { class: "options" },
          element("div", {}, element("label", { for: "series-file" }, "Or a CSV file"), file),
          element("div", {}, element("label", { for: "horizon" }, "Steps ahead"), horizon),
        ),
        element("button", { class: "button is-primary", type: "submit" }, "Forecast"),
      ),
      status.node,
    ),
    snippets.node,
  );
  return () => {
    status.stop();
    chart?.stop();
  };
}

function valueTable({ name, values, lower, upper, level }, ahead, timeName) {
  const share = level ? `${Math.round(100 * level)} % ` : "";
  const head = [timeName, name, ...(lower ? [`${share}from`, "to"] : [])];
  const rows = values.map((value, at) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, ahead[at]),
      [value, ...(lower ? [lower[at], upper[at]] : [])].map((each) => element("td", {}, shortNumber(each))),
    ),
  );
  return element(
    "table",
    { class: "table values" },
    element("thead", {}, element("tr", {}, head.map((title) => element("th", { scope: "col" }, title)))),
    element("tbody", {}, rows),
  );
}
