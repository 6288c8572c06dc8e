/** Classes with their probabilities, as bars. */

import { element } from "../dom.js";

/** @param classes `{label, index, probability}`, best first. */
export function classBars(classes) {
  const rows = classes.map(({ label, index, probability }) => {
    const bar = element("div", { class: "class-bar" });
    bar.style.width = `${100 * Math.min(Math.max(probability, 0), 1)}%`;
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, label || `class ${index}`),
      element("td", { class: "class-track", "aria-hidden": "true" }, bar),
      element("td", { class: "class-percent" }, percentage(probability)),
    );
  });
  const head = element(
    "tr",
    {},
    element("th", { scope: "col" }, "Class"),
    element("td", { "aria-hidden": "true" }),
    element("th", { scope: "col", class: "class-percent" }, "Probability"),
  );
  return element("table", { class: "table class-bars" }, element("thead", {}, head), element("tbody", {}, rows));
}

/** A probability as a percentage with one decimal. */
export function percentage(probability) {
  return `${(100 * probability).toFixed(1)} %`;
}
