/** sequence-classification: the most probable classes of a text. */

import { postJson } from "../api.js";
import { element, replace } from "../dom.js";
import { callSnippets } from "./call_snippets.js";
import { callStatus } from "./call_status.js";
import { classifyTextCall } from "./call_texts.js";
import { classBars } from "./class_bars.js";
import { textForm, unknownNote } from "./text_form.js";

const TOP = 5;

/** @returns the function that ends its calls, as each part of the playground. */
export function mount(container, model) {
  const status = callStatus();
  const { result } = status;
  const snippets = callSnippets(model);

  function submit(text) {
    snippets.show((place) => classifyTextCall(place, model.name, text, TOP));
    const path = `/v1/models/${encodeURIComponent(model.name)}:classify-text`;
    status.run(
      (signal) => postJson(path, { texts: [text], top: TOP }, { signal }),
      (answer) => {
        const [{ classes, unknown }] = answer.results;
        replace(result, element("p", { class: "top-label" }, classes[0].label || `class ${classes[0].index}`), classBars(classes), unknownNote(unknown));
        return `version ${answer.version}`;
      },
    );
  }

  container.append(
    element(
      "div",
      { class: "try" },
      textForm(model.contract, { label: "Text", verb: "Classify", submit }),
      status.node,
    ),
    snippets.node,
  );
  return () => status.stop();
}
