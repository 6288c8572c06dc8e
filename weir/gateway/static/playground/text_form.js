/** The form of a text: a field, its button and options between them. */

import { element } from "../dom.js";
import { exampleText } from "./example_texts.js";

/** How a bundle cuts a text into tokens, in words. */
const RULES = {
  words: "The model cuts it into words.",
  spaces: "The model reads what spaces separate.",
  letters: "The model reads its letters.",
};

/**
 * @param label of the field.
 * @param verb the button's text.
 * @param options nodes between field and button.
 * @param submit is called with the text.
 */
export function textForm(contract, { label, verb, options = [], submit }) {
  const field = element("textarea", { id: "text", class: "field text-field", rows: "3", spellcheck: "false", "aria-describedby": "text-hint" });
  field.value = exampleText(contract);
  const form = element(
    "form",
    { class: "panel text-form" },
    element("label", { for: "text" }, label),
    field,
    element("p", { id: "text-hint", class: "muted" }, `${RULES[contract.tokenisation.rule] ?? ""} Ctrl+Enter sends it.`.trim()),
    options,
    element("button", { class: "button is-primary", type: "submit" }, verb),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(field.value);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return form;
}

/** A line about tokens that the model's vocabulary lacks; null if there are none. */
export function unknownNote(unknown) {
  if (unknown.length === 0) return null;
  return element(
    "p",
    { class: "unknown-note" },
    "Not in the model's vocabulary: ",
    unknown.map((token, at) => [at > 0 ? ", " : null, element("span", { class: "is-unknown" }, token)]),
    ". The model sees each of them as the same unknown token.",
  );
}
