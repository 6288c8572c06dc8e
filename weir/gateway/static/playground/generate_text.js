/** sequence-to-sequence: tokens as they are generated, then the hypotheses and their attention. */

import { ApiError, streamEvents } from "../api.js";
import { element, replace } from "../dom.js";
import { attentionFigure } from "./attention.js";
import { callSnippets } from "./call_snippets.js";
import { callStatus, milliseconds } from "./call_status.js";
import { generateCall } from "./call_texts.js";
import { percentage } from "./class_bars.js";
import { textForm, unknownNote } from "./text_form.js";

/** @returns the function that ends its calls, as each part of the playground. */
export function mount(container, model) {
  // Each token would be announced alone, so only the result is a live region.
  const stream = element("p", { class: "stream" });
  const status = callStatus(stream);
  const { result } = status;
  const snippets = callSnippets(model);
  const hasAttention = Boolean(model.contract.decoding.attention);
  const options = searchOptions();

  function submit(text) {
    const body = { text, ...options.read(), attention: hasAttention };
    snippets.show((place) => generateCall(place, model.name, body));
    replace(stream);
    replace(result);
    const started_ms = performance.now();
    let first_ms = null;
    let answer = null;
    const onEvent = (name, data) => {
      if (name === "error") throw new ApiError(200, data.status, data.error);
      if (name === "result") answer = data;
      if (name !== "token") return;
      first_ms ??= performance.now() - started_ms;
      stream.append(element("span", { class: "piece", title: `${data.token}: ${percentage(Math.exp(data.log_probability))}` }, data.text));
    };
    const path = `/v1/models/${encodeURIComponent(model.name)}:generate`;
    stream.classList.add("is-running");
    status
      .run(
        async (signal, isNewest) => {
          await streamEvents(path, body, (name, data) => isNewest() && onEvent(name, data), { signal });
          if (answer === null) throw new ApiError(200, "", "the answer ended before its result");
          return answer;
        },
        () => {
          show(answer);
          return [first_ms === null ? null : `first token after ${milliseconds(first_ms)}`, `version ${answer.version}`].filter(Boolean).join(", ");
        },
      )
      .finally(() => stream.classList.remove("is-running"));
  }

  function show({ source, unknown, hypotheses }) {
    const [best] = hypotheses;
    if (!stream.hasChildNodes()) stream.textContent = best.text;
    replace(
      result,
      element("p", { class: "visually-hidden" }, `Result: ${best.text}`),
      best.is_complete ? null : element("p", { class: "muted" }, "Cut off at the largest number of tokens."),
      unknownNote(unknown),
      hypotheses.length > 1 ? hypothesisTable(hypotheses) : null,
      best.attention ? attentionFigure(source, best.tokens, best.attention) : null,
    );
  }

  container.append(
    element(
      "div",
      { class: "try" },
      textForm(model.contract, { label: "Text", verb: "Generate", options: options.node, submit }),
      status.node,
    ),
    snippets.node,
  );
  return () => status.stop();
}

/** The fields of the search; `read()` returns their part of the request. */
function searchOptions() {
  const search = element(
    "select",
    { id: "search", class: "field", onchange: update },
    element("option", { value: "greedy" }, "Greedy search"),
    element("option", { value: "beam" }, "Beam search"),
    element("option", { value: "sample" }, "Sampling"),
  );
  const width = numberField("width", "Beam width", { value: 4, min: 1, max: 64 });
  const temperature = numberField("temperature", "Temperature", { value: 1, min: 0.05, max: 10, step: "any" });
  const seed = numberField("seed", "Seed", { value: 0, min: 0, max: Number.MAX_SAFE_INTEGER });
  const count = numberField("count", "Hypotheses", { value: 1, min: 1, max: 16 });

  function update() {
    width.node.hidden = search.value !== "beam";
    temperature.node.hidden = seed.node.hidden = search.value !== "sample";
    count.node.hidden = search.value === "greedy";
    // A hidden field must not keep the form from being sent.
    for (const { node, field } of [width, temperature, seed, count]) field.disabled = node.hidden;
  }
  update();

  return {
    node: element("div", { class: "options" }, element("div", {}, element("label", { for: "search" }, "Search"), search), width.node, temperature.node, seed.node, count.node),
    read() {
      if (search.value === "beam") return { beam: { width: width.field.valueAsNumber }, n_best: count.field.valueAsNumber };
      if (search.value === "sample") {
        return { sample: { temperature: temperature.field.valueAsNumber, seed: seed.field.valueAsNumber }, n_best: count.field.valueAsNumber };
      }
      return {};
    },
  };
}

function numberField(id, label, { value, ...limits }) {
  const field = element("input", { id, class: "field", type: "number", required: true, value, step: 1, ...limits });
  return { field, node: element("div", {}, element("label", { for: id }, label), field) };
}

function hypothesisTable(hypotheses) {
  const rows = hypotheses.map((each, at) =>
    element("tr", {}, element("td", {}, at + 1), element("td", {}, each.text), element("td", {}, each.score.toFixed(3)), element("td", {}, percentage(Math.exp(each.log_probability)))),
  );
  const head = ["Rank", "Text", "Score", "Probability"].map((title) => element("th", { scope: "col" }, title));
  return element("table", { class: "table hypotheses" }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows));
}
