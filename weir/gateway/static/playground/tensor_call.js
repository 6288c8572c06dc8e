/** A model without a task: a request of tensors as JSON, to edit and send. */

import { getJson, postBytes } from "../api.js";
import { element, replace } from "../dom.js";
import { callSnippets } from "./call_snippets.js";
import { callStatus } from "./call_status.js";
import { inferCall } from "./call_texts.js";
import { firstRequest, nested, requestText, valuesText } from "./tensor_data.js";

/** @returns the function that ends its calls, as each part of the playground. */
export function mount(container, model) {
  const path = `/v2/models/${encodeURIComponent(model.name)}`;
  const status = callStatus();
  const { result } = status;
  const snippets = callSnippets(model);
  const field = element("textarea", { id: "request", class: "field text-field request-field", rows: "16", spellcheck: "false", "aria-describedby": "request-hint" });
  const hint = element("p", { id: "request-hint", class: "muted" }, `The JSON of a request to ${path}/infer.`);

  async function prefill() {
    const metadata = await getJson(path);
    if (field.value) return;
    field.value = requestText(firstRequest(metadata.inputs, model.contract));
    const shapes = metadata.inputs.map(({ name, datatype, shape }) => `${name} ${datatype} [${shape.join(", ")}]`).join("; ");
    hint.textContent = `The JSON of a request to ${path}/infer. Inputs: ${shapes}; -1 is an axis of any size.`;
  }

  function submit(event) {
    event.preventDefault();
    let body;
    try {
      body = JSON.parse(field.value);
    } catch (error) {
      status.fail(`The request is not JSON: ${error.message}`);
      return;
    }
    const inputs = readInputs(body);
    if (inputs) snippets.show((place) => inferCall(place, model.name, inputs, body));
    else snippets.clear();
    // The text itself is sent: its integers may have more digits than JavaScript's numbers.
    status.run((signal) => postBytes(`${path}/infer`, field.value, "application/json", { signal }), (answer) => {
      replace(result, outputTable(answer.outputs), answer.outputs.some(isRounded) ? element("p", { class: "muted" }, "Integers beyond 2⁵³ are shown rounded.") : null);
      return `version ${answer.model_version}`;
    });
  }

  container.append(
    element(
      "div",
      { class: "try" },
      element(
        "form",
        { class: "panel text-form", onsubmit: submit },
        element("label", { for: "request" }, "Request"),
        field,
        hint,
        element("button", { class: "button is-primary", type: "submit" }, "Send"),
      ),
      status.node,
    ),
    snippets.node,
  );
  prefill().catch((error) => status.fail(error.message));
  return () => status.stop();
}

/**
 * The inputs of a request with nested values; null if one is malformed, which the server says, or
 * has an integer that JavaScript rounds.
 */
function readInputs(body) {
  if (!Array.isArray(body?.inputs)) return null;
  const inputs = body.inputs.map((input) => ({
    name: input?.name,
    datatype: input?.datatype,
    values: Array.isArray(input?.shape) && Array.isArray(input?.data) && !isRounded(input) ? nested(input.data, input.shape) : null,
  }));
  return inputs.every(({ name, values }) => typeof name === "string" && values !== null) ? inputs : null;
}

/** Whether a tensor has an integer beyond those that JavaScript's numbers hold exactly. */
function isRounded({ datatype, data }) {
  return /INT64$/.test(datatype) && [data].flat(Infinity).some((value) => Math.abs(value) > Number.MAX_SAFE_INTEGER);
}

function outputTable(outputs) {
  const rows = outputs.map(({ name, datatype, shape, data }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, `${datatype} [${shape.join(", ")}]`),
      element("td", {}, element("pre", { class: "tensor-values", tabindex: "0", role: "region", "aria-label": `Values of ${name}` }, valuesText(data, shape))),
    ),
  );
  const head = ["Output", "Type", "Values"].map((title) => element("th", { scope: "col" }, title));
  return element("table", { class: "table outputs" }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows));
}
