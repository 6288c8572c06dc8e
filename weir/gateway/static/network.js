/** The network of a model: its layers with parameters, connections and sharing. */

import { element } from "./dom.js";

export function mount(container) {
  container.append(element("p", { class: "muted" }, "There is no view of the network yet."));
  return () => container.replaceChildren();
}
