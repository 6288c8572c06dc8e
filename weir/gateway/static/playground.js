/** The playground of a model, made of the bundle's own description. */

import { element } from "./dom.js";

export function mount(container) {
  container.append(element("p", { class: "muted" }, "There is no playground yet."));
  return () => container.replaceChildren();
}
