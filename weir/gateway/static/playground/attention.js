/** Attention as a heat map of source by output tokens, and as a table of its strongest weights. */

import { element, svgElement } from "../dom.js";
import { percentage } from "./class_bars.js";

const CELL = 26;
const LETTER = 7.5;
/** A weaker weight is not drawn: it could not be seen, and long texts have very many. */
const LEAST_DRAWN = 0.01;

/**
 * @param source the source's tokens.
 * @param tokens the output's tokens; a step behind them is that of the end.
 * @param weights for each step a weight for each source token.
 */
export function attentionFigure(source, tokens, weights) {
  const steps = weights.map((row, at) => ({ row, token: tokens[at] ?? "end" }));
  return element(
    "figure",
    { class: "attention" },
    element("figcaption", { class: "muted" }, "Attention: which source tokens (columns) each output token (row) was made from"),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attention heat map" }, heatMap(source, steps)),
    element("details", {}, element("summary", {}, "As a table"), strongest(source, steps)),
  );
}

function heatMap(source, steps) {
  const isUpright = source.every((token) => token.length <= 2);
  const left = 10 + LETTER * longest(steps.map((step) => step.token));
  const top = isUpright ? 22 : 10 + LETTER * longest(source);
  const width = left + CELL * source.length + 4;
  const height = top + CELL * steps.length + 4;
  const columns = source.map((token, at) => {
    const x = left + CELL * (at + 0.5);
    const turned = isUpright ? {} : { transform: `rotate(-90 ${x} ${top - 6})`, "text-anchor": "start", dy: "0.35em" };
    return svgElement("text", { class: "attention-token", x, y: top - 6, "text-anchor": "middle", ...turned }, token);
  });
  const rows = steps.map(({ row, token }, step) => {
    const y = top + CELL * step;
    return [
      svgElement("text", { class: token === "end" ? "attention-token is-end" : "attention-token", x: left - 6, y: y + CELL / 2, dy: "0.35em", "text-anchor": "end" }, token),
      row.map((weight, at) =>
        weight < LEAST_DRAWN
          ? null
          : svgElement(
              "rect",
              { class: "attention-cell", x: left + CELL * at + 1, y: y + 1, width: CELL - 2, height: CELL - 2, "fill-opacity": Math.min(weight, 1).toFixed(3) },
              svgElement("title", {}, `${token} from ${source[at]}: ${percentage(weight)}`),
            ),
      ),
    ];
  });
  const ground = svgElement("rect", { class: "attention-ground", x: left, y: top, width: CELL * source.length, height: CELL * steps.length });
  return svgElement("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Heat map; the table below has its strongest weights" }, ground, columns, rows);
}

function strongest(source, steps) {
  const rows = steps.map(({ row, token }) => {
    const at = row.indexOf(Math.max(...row));
    return element("tr", {}, element("th", { scope: "row" }, token), element("td", {}, source[at]), element("td", {}, percentage(row[at])));
  });
  const head = ["Output token", "Strongest source token", "Weight"].map((title) => element("th", { scope: "col" }, title));
  return element("table", { class: "table attention-table" }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows));
}

function longest(texts) {
  return Math.max(...texts.map((text) => text.length), 1);
}
