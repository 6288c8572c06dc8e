/** A field for a picture: a file is dropped or chosen. */

import { element } from "./dom.js";

/**
 * @param id of the input.
 * @param onFile is called with the file.
 * @returns `{node, input}`; the input shows the name of the last file.
 */
export function pictureDrop(id, onFile, ...children) {
  const input = element("input", { id, class: "file", type: "file", accept: "image/png,image/jpeg", onchange: chosen });
  const node = element(
    "div",
    { class: "drop", ondragover: over, ondragleave: () => node.classList.remove("is-over"), ondrop: drop },
    element("label", { for: id }, "Drop a picture here, or choose a file (PNG or JPEG)"),
    input,
    children,
  );

  function over(event) {
    event.preventDefault();
    node.classList.add("is-over");
  }

  function drop(event) {
    event.preventDefault();
    node.classList.remove("is-over");
    if (event.dataTransfer.files.length === 0) return;
    input.files = event.dataTransfer.files;
    chosen();
  }

  function chosen() {
    if (input.files.length > 0) onFile(input.files[0]);
  }

  return { node, input };
}
