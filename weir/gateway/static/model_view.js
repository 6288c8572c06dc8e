/** The view of one model: its facts, its playground and its network. */

import { getJson } from "./api.js";
import { element, replace, setText } from "./dom.js";
import { answeringVersion, modelFacts, taskInWords } from "./models.js";
import { tabs } from "./tabs.js";

/** @returns `{node, update(state), close()}` as every view. */
export function modelView(name) {
  const task = element("p", { class: "muted" });
  const facts = element("div", { class: "versions" }, element("p", { class: "muted" }, "Reading the model …"));
  const body = element("div", { class: "model-body" });
  const node = element(
    "div",
    { class: "model" },
    element("nav", { "aria-label": "Breadcrumb" }, element("a", { href: "#/" }, "All models")),
    element("div", { class: "panel-head" }, element("h2", {}, name), task),
    facts,
    body,
  );
  let mounts = [];
  let shown = "";

  function unmount() {
    for (const mount of mounts) mount.unmount();
    mounts = [];
  }

  /** Mount the tabs again only when another version answers: a poll must not empty a form. */
  function show(model, servers) {
    const version = answeringVersion(model);
    const key = version ? `${version.version} ${version.since}` : "";
    if (key === shown && body.hasChildNodes()) return;
    shown = key;
    unmount();
    if (!version) {
      replace(body, element("p", { class: "muted" }, "No version of this model answers requests."));
      return;
    }
    const tryIt = async () => {
      const contract = contractOf(await getJson(`/v2/models/${encodeURIComponent(name)}/config`));
      const { mount } = await import("./playground.js");
      return (panel) => mount(panel, { name, version: version.version, contract, ...servers });
    };
    const network = async () => {
      const { mount } = await import("./network.js");
      return (panel) => mount(panel, { name });
    };
    const open = (panel, load) => mounts.push(mounted(panel, load));
    replace(
      body,
      tabs(name, [
        { key: "try", title: "Try it", open: (panel) => open(panel, tryIt) },
        { key: "network", title: "Network", open: (panel) => open(panel, network) },
      ]),
    );
  }

  return {
    node,
    close: unmount,
    update(state) {
      if (!state.models) return;
      const model = state.models.find((each) => each.name === name);
      if (!model) {
        unmount();
        shown = "";
        replace(facts, element("p", { class: "error" }, `The server has no model ${name}.`));
        replace(body);
        return;
      }
      setText(task, taskInWords(model));
      replace(facts, modelFacts(model));
      show(model, { serverTarget: state.target, usesTls: state.usesTls });
    },
  };
}

/** A part that is loaded, then mounted; unmounted even if that comes first. */
function mounted(panel, load) {
  let unmount = null;
  let isOver = false;
  replace(panel, element("p", { class: "muted" }, "Loading …"));
  load().then(
    (mount) => {
      if (isOver) return;
      replace(panel);
      unmount = mount(panel);
    },
    (error) => {
      if (!isOver) replace(panel, element("p", { class: "error", role: "alert" }, error.message));
    },
  );
  return {
    unmount() {
      isOver = true;
      unmount?.();
    },
  };
}

/** The bundle's description in a model's configuration; null for a model without one. */
function contractOf(config) {
  const parameter = config.parameters?.["weir.contract"];
  const text = parameter?.string_value ?? parameter?.stringValue ?? parameter;
  return typeof text === "string" ? JSON.parse(text) : text ?? null;
}
