/** The network of a model: its layers, the kernels of its first convolution, its feature maps. */

import { getJson } from "./api.js";
import { element, replace } from "./dom.js";
import { kernels } from "./network_kernels.js";
import { layers } from "./network_layers.js";
import { featureMaps } from "./network_maps.js";

export function mount(container, { name }) {
  const path = `/page/models/${encodeURIComponent(name)}`;
  const stop = new AbortController();
  const node = element("div", { class: "network" }, element("p", { class: "muted", role: "status" }, "Reading the network …"));
  container.append(node);
  read();

  async function read() {
    try {
      // One after the other: the gateway reads a model's files for one view at a time.
      const network = await getJson(`${path}/network`, { signal: stop.signal });
      const kernelsPanel = panel("First kernels", element("p", { class: "muted", role: "status" }, "Reading the kernels …"));
      replace(
        node,
        network.graphs.map((graph) => layers(graph, network)),
        kernelsPanel,
        network.picture && panel("Feature maps", featureMaps(`${path}/feature-maps`, network.picture, stop.signal)),
      );
      const { convolution } = await getJson(`${path}/kernels`, { signal: stop.signal });
      if (convolution) replace(kernelsPanel, heading("First kernels"), kernels(convolution, stop.signal));
      else kernelsPanel.remove();
    } catch (error) {
      if (error.name === "AbortError") return;
      const isOff = error.status === "UNIMPLEMENTED";
      const message = element("p", isOff ? { class: "muted" } : { class: "error", role: "alert" }, `${error.message}.`);
      node.querySelectorAll("[role=status]").forEach((status) => status.remove());
      node.prepend(message);
    }
  }

  return () => {
    stop.abort();
    node.remove();
  };
}

function panel(title, ...children) {
  return element("section", { class: "panel" }, heading(title), children);
}

function heading(title) {
  return element("h3", {}, title);
}
