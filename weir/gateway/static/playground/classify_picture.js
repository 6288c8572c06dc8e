/** image-classification: draw or choose a picture, and see its most probable classes. */

import { postJson } from "../api.js";
import { element, replace } from "../dom.js";
import { pictureDrop } from "../picture_drop.js";
import { callSnippets } from "./call_snippets.js";
import { callStatus } from "./call_status.js";
import { classifyPictureCall } from "./call_texts.js";
import { classBars } from "./class_bars.js";
import { drawableSide } from "./digit_picture.js";
import { drawDigit } from "./draw_digit.js";

const TOP = 5;

/** @returns the function that ends its calls, as each part of the playground. */
export function mount(container, model) {
  const status = callStatus();
  const { result } = status;
  const snippets = callSnippets(model);
  const preview = element("img", { class: "preview", alt: "", hidden: true });
  let address = "";

  /** Show a chosen file; a file that the browser cannot show is still sent. */
  function show(file) {
    if (address) URL.revokeObjectURL(address);
    address = file ? URL.createObjectURL(file) : "";
    preview.hidden = true;
    if (file) {
      preview.src = address;
      preview.alt = `Preview of ${file.name}`;
    }
  }
  preview.addEventListener("load", () => (preview.hidden = false));

  /** @param fileName the name of a chosen file; empty for a drawing. */
  async function classify(picture, fileName) {
    await status.run(
      async (signal, isNewest) => {
        const base64 = await toBase64(picture);
        if (isNewest()) snippets.show((place) => classifyPictureCall(place, model.name, { base64, fileName }, TOP));
        const body = { pictures: [{ base64 }], top: TOP };
        return postJson(`/v1/models/${encodeURIComponent(model.name)}:classify`, body, { signal });
      },
      (answer) => {
        const { classes } = answer.results[0];
        replace(result, element("p", { class: "top-label" }, classes[0].label || `class ${classes[0].index}`), classBars(classes));
        return `version ${answer.version}`;
      },
    );
  }

  function choose(file) {
    drawing?.clear();
    show(file);
    classify(file, file.name);
  }

  function drawn(picture) {
    if (picture === null) {
      status.reset();
      snippets.clear();
      return;
    }
    show(null);
    zone.input.value = "";
    classify(picture, "");
  }

  const zone = pictureDrop("picture", choose, preview);
  const drawing = drawableSide(model.contract) ? drawDigit(model.contract, drawn) : null;
  container.append(
    element(
      "div",
      { class: "try" },
      element("section", { class: "panel", "aria-label": "Picture" }, drawing?.node, zone.node),
      status.node,
    ),
    snippets.node,
  );
  return () => {
    status.stop();
    drawing?.stop();
    show(null);
  };
}

/** The bytes of a Blob in base64. */
function toBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`the file cannot be read: ${reader.error.message}`));
    reader.readAsDataURL(blob);
  });
}
