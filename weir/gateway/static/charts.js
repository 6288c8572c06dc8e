/** Small line charts of the last two minutes. */

import { element, replace, setText, svgElement } from "./dom.js";
import { duration, percent, significant, spaced } from "./words.js";

export const WINDOW_S = 120;

const WIDTH = 300;
const HEIGHT = 72;

const perSecond = (value) => `${significant(value)} per second`;
const rows = (value) => `${significant(value)} ${value === 1 ? "row" : "rows"}`;

/**
 * What each chart shows. A line has a name, and its value of a sample (null: nothing measured).
 * `top` fixes the top of the vertical axis, `least` bounds it from below. A chart with a `total`
 * shows that in its head, and its lines below it.
 */
const CHARTS = [
  {
    key: "requests",
    title: "Requests",
    format: perSecond,
    least: 1,
    lines: () => [{ name: "requests", value: (sample) => sample.requests_per_s }],
  },
  {
    key: "latency",
    title: "Latency",
    format: duration,
    least: 0.001,
    lines: () => [
      { name: "p50", value: (sample) => sample.p50_s },
      { name: "p99", value: (sample) => sample.p99_s },
    ],
  },
  {
    key: "batch",
    title: "Batch size",
    format: rows,
    least: 1,
    lines: () => [{ name: "mean", value: (sample) => sample.batch_rows }],
  },
  {
    key: "queue",
    title: "Queued",
    format: rows,
    least: 1,
    lines: () => [{ name: "queued", value: (sample) => sample.queued_rows }],
  },
  {
    key: "padding",
    title: "Padding",
    format: (share) => `${percent(share)} of tokens`,
    axis: percent,
    top: 1,
    lines: () => [{ name: "padding", value: (sample) => sample.padding_share }],
  },
  {
    key: "tokens",
    title: "Generated tokens",
    format: perSecond,
    least: 1,
    isOptional: true,
    lines: () => [{ name: "tokens", value: (sample) => sample.tokens_per_s }],
  },
  {
    key: "failures",
    title: "Failures",
    format: perSecond,
    least: 1,
    lines: failureLines,
    total: (sample) => Object.values(sample.failures_per_s).reduce((sum, rate) => sum + rate, 0),
  },
];

/**
 * The charts of one model or of all.
 *
 * @returns an object with `node`, and `show(samples, now_s)`. A sample `{time_s, isMissing: true}`
 *   stands for a scrape that failed.
 */
export function charts() {
  const parts = CHARTS.map(chart);
  const node = element("div", { class: "charts" }, parts.map((part) => part.node));
  return {
    node,
    show(samples, now_s) {
      for (const part of parts) part.show(samples, now_s);
    },
  };
}

function chart(kind) {
  const value = element("span", { class: "chart-value", "data-chart": kind.key });
  const legend = element("p", { class: "chart-legend" });
  const top = element("span", { class: "chart-top" });
  const picture = svgElement("svg", {
    class: "chart-picture",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
  });
  const node = element(
    "figure",
    { class: "chart" },
    element("figcaption", { class: "chart-head" }, element("span", { class: "chart-title" }, kind.title), value),
    element("div", { class: "chart-plot" }, picture, top),
    element("div", { class: "chart-axis", "aria-hidden": "true" }, element("span", {}, "2 min ago"), element("span", {}, "now")),
    legend,
  );
  const parts = { node, value, top, picture, legend };
  return { node, show: (samples, now_s) => show(kind, parts, samples, now_s) };
}

function show(kind, parts, samples, now_s) {
  const known = samples.filter((sample) => !sample.isMissing);
  const lines = kind.lines(known);
  const highest = Math.max(0, ...lines.flatMap((line) => known.map((sample) => line.value(sample) ?? 0)));
  const top = kind.top ?? ceiling(Math.max(highest, kind.least));
  const axis = kind.axis ?? kind.format;
  parts.node.hidden = Boolean(kind.isOptional) && highest === 0;
  setText(parts.top, axis(top));
  replace(
    parts.picture,
    svgElement("line", { class: "chart-grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
    gaps(samples, now_s).map(([from, to]) =>
      svgElement("rect", { class: "chart-gap", x: from, y: 0, width: to - from, height: HEIGHT }),
    ),
    lines.map((line, index) =>
      svgElement("path", { class: `chart-line is-${(index % 4) + 1}`, d: path(samples, line.value, top, now_s) }),
    ),
  );
  const latest = samples.at(-1);
  const isMeasured = latest && !latest.isMissing;
  const entries = isMeasured && lines.map((line, index) => entry(kind, line, latest, index));
  replace(parts.value, currentValue(kind, lines, latest, entries));
  replace(parts.legend, kind.total && entries);
  const range = highest > 0 ? ` Highest in two minutes: ${kind.format(highest)}.` : "";
  const words = [parts.value, parts.legend].map((part) => part.innerText).join(" ").trim();
  parts.picture.setAttribute("aria-label", `${kind.title}, now: ${words}.${range}`);
}

/** The latest value in words; of several lines, each with its name. */
function currentValue(kind, lines, latest, entries) {
  if (!latest) return "waiting for two readings";
  if (latest.isMissing) return "no reading";
  if (kind.total) return kind.format(kind.total(latest));
  if (lines.length > 1) return entries;
  const value = lines[0].value(latest);
  return value === null ? "nothing measured" : kind.format(value);
}

function entry(kind, line, latest, index) {
  const value = line.value(latest);
  const words = `${line.name} ${value === null ? "–" : kind.format(value)}`;
  return [element("span", { class: `chart-entry is-${(index % 4) + 1}` }, words), " "];
}

/** A line for each reason that occurred in the window. */
function failureLines(samples) {
  const reasons = new Set(samples.flatMap((sample) => Object.keys(sample.failures_per_s)));
  return [...reasons]
    .sort()
    .map((reason) => ({ name: spaced(reason), value: (sample) => sample.failures_per_s[reason] ?? 0 }));
}

function path(samples, value, top, now_s) {
  let data = "";
  let isDrawn = false;
  for (const sample of samples) {
    const y = sample.isMissing ? null : value(sample);
    if (y === null) {
      isDrawn = false;
      continue;
    }
    const height = HEIGHT - 1 - (Math.min(y, top) / top) * (HEIGHT - 2);
    const point = `${place(sample.time_s, now_s).toFixed(1)} ${height.toFixed(1)}`;
    // A point between two gaps is drawn as a line without length, whose ends are round.
    data += isDrawn ? `L${point}` : `M${point}h0`;
    isDrawn = true;
  }
  return data;
}

/** Stretches of the horizontal axis in which scrapes failed. */
function gaps(samples, now_s) {
  const stretches = [];
  samples.forEach((sample, index) => {
    if (!sample.isMissing) return;
    const from = place(samples[index - 1]?.time_s ?? sample.time_s - 2, now_s);
    stretches.push([from, Math.max(from, place(sample.time_s, now_s))]);
  });
  return stretches;
}

function place(time_s, now_s) {
  return Math.max(0, WIDTH * (1 - (now_s - time_s) / WINDOW_S));
}

/** The next of 1, 2, 5, 10, 20, … */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}
