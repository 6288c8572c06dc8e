/** The chart of a forecast: history, forecast and interval, as SVG. */

import { element, svgElement } from "../dom.js";

const HEIGHT = 260;
const MARGIN = { top: 12, right: 14, bottom: 30, left: 58 };

/**
 * @param history the last values of the series.
 * @param forecast `{name, values, lower, upper, level}`; the bounds are null without an interval.
 * @param ticks the text of each time step, those of the forecast behind those of the history.
 * @returns `{node, stop()}`; the chart follows its container's width.
 */
export function forecastChart(history, forecast, ticks) {
  const box = element("div", { class: "forecast-plot" });
  const draw = () => box.replaceChildren(picture(Math.max(box.clientWidth, 240), history, forecast, ticks));
  const observer = new ResizeObserver(draw);
  observer.observe(box);
  const legend = element(
    "p",
    { class: "forecast-legend muted" },
    element("span", { class: "forecast-key is-history" }, forecast.name),
    element("span", { class: "forecast-key is-forecast" }, "forecast"),
    forecast.level ? element("span", { class: "forecast-key is-interval" }, `${Math.round(100 * forecast.level)} % interval`) : null,
  );
  return { node: element("div", {}, box, legend), stop: () => observer.disconnect() };
}

function picture(width, history, { name, values, lower, upper }, ticks) {
  const all = [...history, ...values, ...(lower ?? []), ...(upper ?? [])];
  const scale = niceScale(Math.min(...all), Math.max(...all));
  const last = history.length + values.length - 1;
  const x = (step) => MARGIN.left + ((width - MARGIN.left - MARGIN.right) * step) / Math.max(last, 1);
  const y = (value) => HEIGHT - MARGIN.bottom - ((HEIGHT - MARGIN.top - MARGIN.bottom) * (value - scale.from)) / (scale.to - scale.from);
  const path = (numbers, first) => numbers.map((value, at) => `${at === 0 ? "M" : "L"}${x(first + at).toFixed(1)},${y(value).toFixed(1)}`).join("");
  const now = history.length - 1;
  // The lines join at the last measured value.
  const joined = (numbers) => [history[now], ...numbers];
  const label = `${name}: ${history.length} values of the series, and ${values.length} forecast; the table below has them`;
  return svgElement(
    "svg",
    { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label },
    scale.ticks.map((tick) => [
      svgElement("line", { class: "forecast-grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
      svgElement("text", { class: "forecast-tick", x: MARGIN.left - 8, y: y(tick), dy: "0.35em", "text-anchor": "end" }, shortNumber(tick)),
    ]),
    timeTicks(width, now, last, ticks).map(({ step, anchor }) =>
      svgElement("text", { class: "forecast-tick", x: x(step), y: HEIGHT - 10, "text-anchor": anchor }, ticks[step]),
    ),
    svgElement("line", { class: "forecast-now", x1: x(now), x2: x(now), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
    lower ? svgElement("path", { class: "forecast-band", d: bandPath(joined(lower), joined(upper), now, x, y) }) : null,
    svgElement("path", { class: "forecast-history", d: path(history, 0) }),
    svgElement("path", { class: "forecast-line", d: path(joined(values), now) }),
    values.map((value, at) => svgElement("circle", { class: "forecast-dot", cx: x(now + 1 + at), cy: y(value), r: 3 })),
  );
}

function bandPath(lower, upper, first, x, y) {
  const along = (values) => values.map((value, at) => `${x(first + at).toFixed(1)},${y(value).toFixed(1)}`);
  return `M${[...along(upper), ...along(lower).reverse()].join("L")}Z`;
}

/** The steps with a text: the first, the last of the history and the last, where there is room. */
function timeTicks(width, now, last, ticks) {
  const room = width - MARGIN.left - MARGIN.right;
  const needed = 7 * Math.max(...ticks.map((text) => text.length)) + 12;
  const found = [{ step: last, anchor: "end" }];
  const left = (room * now) / Math.max(last, 1);
  if (room - left > 1.5 * needed && left > needed / 2) found.unshift({ step: now, anchor: "middle" });
  if (Math.min(found[0].step === now ? left - needed / 2 : room - needed, room) > needed) found.unshift({ step: 0, anchor: "start" });
  return found;
}

/** A scale with round ticks: 1, 2 or 5 times a power of ten apart. */
export function niceScale(least, most) {
  const range = most - least || Math.abs(most) || 1;
  const rough = range / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const from = Math.floor((least === most ? least - range / 2 : least) / step) * step;
  const count = Math.ceil((most - from) / step + (least === most ? 1 : 0));
  const ticks = Array.from({ length: count + 1 }, (_, at) => Number((from + at * step).toPrecision(12)));
  return { from: ticks[0], to: ticks.at(-1), ticks };
}

/** A number of at most six significant digits. */
export function shortNumber(value) {
  return String(Number(value.toPrecision(6)));
}
