/** An operation of the documentation: parameters, bodies, answers, and its call to copy or send. */

import { token } from "./api.js";
import { curl, isText, parts } from "./docs_call.js";
import { prose, typeOf } from "./docs_schema.js";
import { element, replace } from "./dom.js";

const MOST_SHOWN = 20_000;

/** An operation, closed until it is asked for; its inside is made then. */
export function operationDetails(entry, found) {
  const { method, path, operation, ofVersion } = entry;
  const details = element(
    "details",
    { class: "docs-operation", id: operation.operationId, ontoggle: fill },
    element("summary", {}, element("span", { class: `docs-method is-${method.toLowerCase()}` }, method), element("code", { class: "docs-path" }, breakable(path)), element("span", { class: "docs-summary" }, operation.summary)),
  );
  function fill() {
    if (!details.open || details.children.length > 1) return;
    details.append(
      element(
        "div",
        { class: "docs-inside" },
        prose(operation.description, {}),
        ofVersion ? element("p", {}, "Of one version: ", element("code", { class: "docs-path" }, breakable(ofVersion.path))) : null,
        tryForm(entry, found),
        bodies("Request body", operation.requestBody?.content),
        answers(operation.responses, found),
      ),
    );
  }
  return details;
}

function tryForm({ method, path, operation }, found) {
  const id = operation.operationId;
  const choices = bodyChoices(operation);
  const inputs = (operation.parameters ?? []).map((each) => resolved(each, found)).map((parameter) => ({ parameter, field: parameterField(id, parameter) }));
  const choice = element("select", { id: `${id}-choice`, class: "field" }, choices.map(({ title }, index) => element("option", { value: index }, title)));
  const body = element("textarea", { id: `${id}-body`, class: "field docs-body", rows: 4, spellcheck: "false" });
  const bodyBox = element("p", { class: "docs-field is-wide" }, element("label", { for: body.id }, "Body"), body);
  const command = element("pre", { class: "docs-code", tabindex: "0", role: "region", "aria-label": `${operation.summary}: the call as curl`, "data-kind": "curl" });
  const said = element("span", { class: "muted", role: "status" });
  const send = element("button", { class: "button is-primary", type: "submit" }, "Send");
  const answer = element("div", { class: "docs-answer", "aria-live": "polite" });

  const call = () => {
    const chosen = choices[Number(choice.value)];
    return parts({ method, path, values: inputs.map(({ parameter, field }) => ({ parameter, value: field.value })), mediaType: chosen?.mediaType, body: body.value, hasToken: token() !== "" });
  };
  const update = () => {
    command.textContent = curl(call(), location.origin);
    said.textContent = "";
  };
  const choose = () => {
    const chosen = choices[Number(choice.value)];
    body.value = chosen?.text ?? "";
    bodyBox.hidden = !chosen || !isText(chosen.mediaType);
    send.hidden = Boolean(chosen) && !isText(chosen.mediaType);
    update();
  };
  choice.addEventListener("change", choose);
  choose();

  async function copy() {
    update();
    try {
      await navigator.clipboard.writeText(command.textContent);
      said.textContent = "curl copied";
    } catch {
      // Browsers let a page copy only over HTTPS and from the machine itself.
      said.textContent = "The browser does not let this page copy; select the text instead.";
    }
  }

  async function submit(event) {
    event.preventDefault();
    update();
    send.disabled = true;
    await show(answer, call());
    send.disabled = false;
  }

  return element(
    "form",
    { class: "docs-try", "aria-label": `Try ${operation.summary}`, oninput: update, onsubmit: submit },
    inputs.map(({ parameter, field }) => element("p", { class: "docs-field" }, element("label", { for: field.id }, element("code", {}, parameter.name), " ", element("span", { class: "muted" }, parameter.in)), field, parameter.description ? element("span", { class: "muted", id: `${field.id}-about` }, parameter.description) : null)),
    choices.length ? element("p", { class: "docs-field is-wide" }, element("label", { for: choice.id }, "Form of the body"), choice) : null,
    bodyBox,
    element("div", { class: "docs-command" }, command, element("p", { class: "docs-buttons" }, send, element("button", { class: "button", type: "button", onclick: copy, "aria-label": `Copy curl: ${operation.summary}` }, "Copy curl"), said)),
    answer,
  );
}

/** What the body can be: each example of each media type, or the media type alone. */
function bodyChoices(operation) {
  return Object.entries(operation.requestBody?.content ?? {}).flatMap(([mediaType, content]) => {
    const examples = Object.values(content.examples ?? {});
    if (!examples.length) return [{ title: mediaType, mediaType, text: "" }];
    return examples.map(({ summary, value }) => ({ title: `${mediaType}: ${summary}`, mediaType, text: JSON.stringify(value) }));
  });
}

function parameterField(id, parameter) {
  const field = `${id}-${parameter.name}`;
  const isPath = parameter.in === "path";
  return element("input", { id: field, class: "field", name: parameter.name, autocomplete: "off", spellcheck: "false", required: isPath, value: isPath ? parameter.example : "", placeholder: isPath ? null : parameter.example, "aria-describedby": parameter.description ? `${field}-about` : null });
}

async function show(node, call) {
  const started = performance.now();
  const headers = Object.fromEntries(call.headers);
  if (token()) headers.Authorization = `Bearer ${token()}`;
  try {
    const response = await fetch(call.path, { method: call.method, headers, body: call.body, cache: "no-store" });
    const text = await response.text();
    const took = (performance.now() - started).toFixed(0);
    const shown = text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}\n… ${text.length - MOST_SHOWN} more characters` : text;
    replace(node, element("p", { class: response.ok ? "" : "error" }, `${response.status} ${response.statusText}`.trim(), element("span", { class: "muted" }, ` ${took} ms`)), shown ? element("pre", { class: "docs-code", tabindex: "0", role: "region", "aria-label": "The answer" }, readable(shown)) : null);
  } catch {
    replace(node, element("p", { class: "error" }, "The gateway cannot be reached."));
  }
}

function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function bodies(title, content) {
  if (!content) return null;
  const row = ([mediaType, { schema }]) => element("tr", {}, element("th", { scope: "row" }, element("code", {}, mediaType)), element("td", {}, typeOf(schema), prose(schema.description)));
  return element("div", {}, element("h3", {}, title), element("table", { class: "table docs-table", "aria-label": title }, element("tbody", {}, Object.entries(content).map(row))));
}

function answers(responses, found) {
  const row = ([code, given]) => {
    const response = resolved(given, found);
    const content = Object.entries(response.content ?? {}).map(([mediaType, { schema, examples }]) => [
      element("p", {}, element("code", {}, mediaType), " ", typeOf(schema)),
      prose(schema.description),
      Object.values(examples ?? {}).map(({ value }) => element("pre", { class: "docs-code", tabindex: "0", role: "region", "aria-label": `Example of ${code}` }, typeof value === "string" ? value : JSON.stringify(value, null, 1))),
    ]);
    const isError = given.$ref !== undefined;
    return element("tr", {}, element("th", { scope: "row" }, code), element("td", {}, prose(response.description, {}), isError ? null : content));
  };
  return element("div", {}, element("h3", {}, "Answers"), element("table", { class: "table docs-table is-answers", "aria-label": "Answers" }, element("tbody", {}, Object.entries(responses).map(row))));
}

/** What a reference stands for. */
function resolved(given, found) {
  return given.$ref
    ? given.$ref
        .slice(2)
        .split("/")
        .reduce((node, key) => node[key], found)
    : given;
}

/** A path that may be broken before a slash. */
function breakable(path) {
  return path.split(/(?=\/)/).flatMap((part) => [element("wbr"), part]);
}
