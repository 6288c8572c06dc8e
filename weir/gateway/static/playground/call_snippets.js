/** The last call as curl, Python and `weir` command, each with a button that copies it. */

import { token } from "../api.js";
import { element, replace } from "../dom.js";

const KINDS = [
  ["curl", "curl"],
  ["python", "Python"],
  ["weir", "weir"],
];

/** @returns `{node, show(call), clear()}`; `call` is a function of `place`, see call_texts.js. */
export function callSnippets(model) {
  const said = element("p", { class: "muted", role: "status" });
  const list = element("div", { class: "snippets" });
  const node = element("section", { class: "panel", hidden: true, "aria-label": "The same call" }, element("div", { class: "panel-head" }, element("h3", {}, "The same call"), said), list);

  async function copy(text, title) {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = `${title} copied`;
    } catch {
      // Browsers let a page copy only over HTTPS and from the machine itself.
      said.textContent = "The browser does not let this page copy; select the text instead.";
    }
  }

  return {
    node,
    show(call) {
      const texts = call({ origin: location.origin, target: model.serverTarget, usesTls: model.usesTls, hasToken: token() !== "" });
      said.textContent = "";
      node.hidden = false;
      replace(
        list,
        KINDS.map(([kind, title]) =>
          element(
            "div",
            { class: "snippet" },
            element(
              "div",
              { class: "panel-head" },
              element("h4", { class: "muted" }, title),
              element("button", { class: "button is-quiet", type: "button", "aria-label": `Copy ${title}`, onclick: () => copy(texts[kind], title) }, "Copy"),
            ),
            element("pre", { class: "snippet-text", tabindex: "0", role: "region", "aria-label": `The call as ${title}`, "data-kind": kind }, texts[kind]),
          ),
        ),
      );
    },
    clear() {
      node.hidden = true;
      replace(list);
    },
  };
}
