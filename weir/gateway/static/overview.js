/** The first view: the charts of all models or of one, and the table of models. */

import { charts } from "./charts.js";
import { element, replace, setText } from "./dom.js";
import { modelCounts, modelTable } from "./models.js";

const ALL = "";

/** @returns `{node, update(state), close()}` as every view. */
export function overview() {
  const select = element("select", { id: "charts-of", class: "field", onchange: () => showCharts() });
  const problem = element("p", { class: "error", role: "status", hidden: true });
  const load = charts();
  const counts = element("p", { class: "muted" });
  const table = element("div", { class: "table-box" }, element("p", { class: "muted" }, "Reading the models …"));
  let history = null;

  function showCharts() {
    if (history) load.show(history.samples(select.value), history.latest_s);
  }

  const node = element(
    "div",
    { class: "overview" },
    element(
      "section",
      { class: "panel", "aria-labelledby": "load-head" },
      element(
        "div",
        { class: "panel-head" },
        element("h2", { id: "load-head" }, "Load"),
        element("label", { class: "inline", for: "charts-of" }, "of", " ", select),
      ),
      problem,
      load.node,
    ),
    element(
      "section",
      { class: "panel", "aria-labelledby": "models-head" },
      element("div", { class: "panel-head" }, element("h2", { id: "models-head" }, "Models"), counts),
      table,
    ),
  );
  return {
    node,
    close() {},
    update(state) {
      history = state.history;
      if (state.models) {
        replace(counts, modelCounts(state.models));
        replace(table, modelTable(state.models, (name) => latest(history, name)));
        setOptions(select, state.models.map((model) => model.name));
      }
      problem.hidden = !state.metricsProblem || Boolean(state.problem);
      setText(problem, state.metricsProblem);
      showCharts();
    },
  };
}

/** The latest sample of a model; undefined if there is none, or the latest scrape failed. */
function latest(history, name) {
  const sample = history.samples(name).at(-1);
  return sample?.isMissing ? undefined : sample;
}

function setOptions(select, names) {
  const wanted = [ALL, ...names];
  const present = [...select.options].map((option) => option.value);
  if (wanted.join("\n") === present.join("\n")) return;
  const chosen = select.value;
  replace(select, wanted.map((name) => element("option", { value: name }, name || "all models")));
  select.value = wanted.includes(chosen) ? chosen : ALL;
}
