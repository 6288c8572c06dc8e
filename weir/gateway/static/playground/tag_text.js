/** tagging: each token of a text with its tag, coloured by tag. */

import { postJson } from "../api.js";
import { element, replace } from "../dom.js";
import { callSnippets } from "./call_snippets.js";
import { callStatus } from "./call_status.js";
import { tagCall } from "./call_texts.js";
import { percentage } from "./class_bars.js";
import { textForm, unknownNote } from "./text_form.js";

/** Colours in playground.css; a tag's own text tells it from another of its colour. */
const COLOURS = 12;

/** @returns the function that ends its calls, as each part of the playground. */
export function mount(container, model) {
  const status = callStatus();
  const { result } = status;
  const snippets = callSnippets(model);
  // By tag, in the order of their first appearance: a tag keeps its colour from text to text.
  const colours = new Map();

  function colourOf(tag) {
    if (!colours.has(tag)) colours.set(tag, colours.size % COLOURS);
    return colours.get(tag);
  }

  function token({ text, tag, probability, is_unknown: isUnknown }) {
    const note = isUnknown ? `${percentage(probability)}, not in the vocabulary` : percentage(probability);
    return element(
      "li",
      { class: `token is-${colourOf(tag)}`, title: `${tag}: ${note}` },
      element("span", { class: isUnknown ? "token-text is-unknown" : "token-text" }, text),
      element("span", { class: "token-tag" }, tag),
      element("span", { class: "visually-hidden" }, note),
    );
  }

  function submit(text) {
    snippets.show((place) => tagCall(place, model.name, text));
    status.run(
      (signal) => postJson(`/v1/models/${encodeURIComponent(model.name)}:tag`, { texts: [text] }, { signal }),
      (answer) => {
        const [{ tokens }] = answer.results;
        const unknown = tokens.filter((each) => each.is_unknown).map((each) => each.text);
        replace(result, element("ul", { class: "tokens" }, tokens.map(token)), unknownNote(unknown));
        return `version ${answer.version}`;
      },
    );
  }

  container.append(
    element(
      "div",
      { class: "try" },
      textForm(model.contract, { label: "Text", verb: "Tag", submit }),
      status.node,
    ),
    snippets.node,
  );
  return () => status.stop();
}
