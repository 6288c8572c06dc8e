/** The documentation page: /openapi.json as operations by tag, each with a call to copy or send. */

import { getJson, setToken, token } from "./api.js";
import { element, replace } from "./dom.js";
import { operationDetails } from "./docs_operation.js";
import { prose, schemaDetails } from "./docs_schema.js";

const VERSION = "/versions/{version}";

async function start() {
  const main = document.getElementById("main");
  let found;
  try {
    found = await getJson("/openapi.json");
  } catch (error) {
    replace(main, element("p", { class: "panel error", role: "alert" }, `/openapi.json: ${error.message}`));
    return;
  }
  const groups = groupsOf(found);
  replace(main, contents(groups), element("div", { class: "docs-groups" }, introduction(found), groups.map((group) => groupSection(group, found)), schemaSection(found)));
  window.addEventListener("hashchange", openTarget);
  openTarget();
}

/** The operations by tag; the path of one version stands with the path without it. */
function groupsOf(found) {
  const operations = Object.entries(found.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })));
  const isVersion = ({ path }) => path.includes(VERSION);
  for (const each of operations.filter((each) => !isVersion(each))) {
    each.ofVersion = operations.find((other) => other.method === each.method && isVersion(other) && other.path.replace(VERSION, "") === each.path);
  }
  return found.tags.map((tag) => ({ ...tag, operations: operations.filter((each) => each.operation.tags[0] === tag.name && !isVersion(each)) }));
}

function introduction(found) {
  const paragraphs = found.info.description.split("\n\n").map((text) => prose(text, {}));
  const field = element("input", { id: "token", class: "field", type: "password", autocomplete: "off", spellcheck: "false", value: token(), oninput: () => setToken(field.value.trim()) });
  return element(
    "section",
    { class: "panel docs-introduction", "aria-label": "Introduction" },
    element("h2", {}, `${found.info.title} ${found.info.version}`),
    paragraphs,
    element("p", { class: "docs-token" }, element("label", { for: "token" }, "Token"), field, element("span", { class: "muted" }, "For calls of this tab, if the server wants one.")),
  );
}

function contents(groups) {
  const entry = (group) => element("li", {}, element("a", { href: `#${slug(group.name)}` }, group.name), " ", element("span", { class: "muted" }, group.operations.length));
  return element("nav", { class: "docs-contents", "aria-label": "Contents" }, element("ul", {}, groups.map(entry), element("li", {}, element("a", { href: "#schemas" }, "Schemas"))));
}

function groupSection(group, found) {
  const title = slug(group.name);
  return element(
    "section",
    { class: "panel", "aria-labelledby": title },
    element("h2", { id: title }, group.name),
    element("p", { class: "muted" }, group.description),
    group.operations.map((each) => operationDetails(each, found)),
  );
}

function schemaSection(found) {
  const schemas = Object.entries(found.components.schemas);
  return element("section", { class: "panel", "aria-labelledby": "schemas" }, element("h2", { id: "schemas" }, "Schemas"), schemas.map(([name, schema]) => schemaDetails(name, schema)));
}

/** Open what the address names, and go there: a closed element has no place to scroll to. */
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target instanceof HTMLDetailsElement) target.open = true;
  target.scrollIntoView();
}

function slug(name) {
  return name.toLowerCase().replaceAll(" ", "-");
}

start();
