/** The layers of a graph as a table, with parameters beside connections on a log scale. */

import { element } from "./dom.js";

const HEADS = ["Layer", "Kind", "Output", "Parameters", "Connections", "Sharing"];

/**
 * @param graph one of the graphs of /page/models/NAME/network.
 * @param network the whole answer.
 */
export function layers(graph, network) {
  const title = network.graphs.length > 1 ? `Layers of the ${graph.name}` : "Layers";
  const most = Math.max(1, ...graph.layers.map((layer) => layer.connections ?? layer.parameters));
  const table = element(
    "table",
    { class: "table layers" },
    element("caption", { class: "muted" }, "Counted for one input. A connection is one use of a weight; sharing is connections divided by parameters."),
    element(
      "thead",
      {},
      element("tr", {}, HEADS.map((head, at) => element("th", { scope: "col", class: at > 2 && "number" }, head)), element("td", {}, legend())),
    ),
    element("tbody", {}, graph.layers.map((layer) => row(layer, most))),
    element("tfoot", {}, total(graph)),
  );
  return element(
    "section",
    { class: "panel" },
    element("h3", {}, title),
    graph.layers.length > 0 ? table : element("p", { class: "muted" }, "The graph has no layer with weights."),
    notes(graph, network).map((note) => element("p", { class: "muted note" }, note)),
  );
}

function row(layer, most) {
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, layer.name),
    cell("Kind", layer.kind),
    cell("Output", size(layer.output)),
    cell("Parameters", number(layer.parameters), "number"),
    cell("Connections", layer.connections === null ? `${number(layer.parameters)} a step` : number(layer.connections), "number"),
    cell("Sharing", layer.sharing === null ? "each step" : `${number(layer.sharing)}×`, "number"),
    element("td", { class: "bars" }, bar(layer.parameters, most, "is-parameters"), bar(layer.connections ?? layer.parameters, most, "is-connections")),
  );
}

function total(graph) {
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, "All layers"),
    element("td", {}),
    element("td", {}),
    cell("Parameters", number(graph.parameters), "number"),
    cell("Connections", graph.connections === null ? "by length" : number(graph.connections), "number"),
    cell("Sharing", graph.sharing === null ? "" : `${graph.sharing.toFixed(1)}×`, "number"),
    element("td", {}),
  );
}

/** What the table leaves out, in a line each. */
function notes(graph, { trained }) {
  const lines = [];
  if (graph.connections === null) lines.push("Layers over time use their weights at each step, so their connections depend on the input's length.");
  const uncounted = Object.entries(graph.uncounted).map(([operator, count]) => (count === 1 ? operator : `${count} ${operator}`));
  if (uncounted.length > 0) lines.push(`Operators without a row, which are not counted: ${uncounted.join(", ")}.`);
  if (graph.constants > 0) lines.push(`Not counted: ${number(graph.constants)} numbers outside these layers, such as embeddings, normalisation and separate biases.`);
  if (graph.repeated > 0) lines.push(`${number(graph.repeated)} parameters are in more than one row.`);
  if (trained && (trained.parameters !== graph.parameters || trained.connections !== graph.connections)) {
    lines.push(
      `As trained, before export: ${number(trained.parameters)} parameters and ${number(trained.connections)} connections, with those of pooling and normalisation.`,
    );
  }
  return lines;
}

function legend() {
  return element(
    "span",
    { class: "bars-legend" },
    element("span", { class: "is-parameters" }, "parameters"),
    " ",
    element("span", { class: "is-connections" }, "connections"),
    ", log scale",
  );
}

/** The cells have the same numbers, so the bars are for the eye alone. */
function bar(value, most, kind) {
  const node = element("div", { class: `bar ${kind}`, "aria-hidden": "true" });
  node.style.width = `${(100 * Math.log10(value + 1)) / Math.log10(most + 1)}%`;
  return node;
}

function cell(head, content, kind = null) {
  return element("td", { class: kind, "data-head": head }, content);
}

function size(output) {
  return output.join(" × ");
}

function number(value) {
  return value.toLocaleString("en");
}
