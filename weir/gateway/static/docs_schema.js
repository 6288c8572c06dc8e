/** JSON schemas as the documentation shows them: a table of fields, with links between schemas. */

import { element } from "./dom.js";

/** A schema of the components, closed until it is asked for. */
export function schemaDetails(name, schema) {
  return element("details", { class: "docs-schema", id: `schema-${name}` }, element("summary", {}, element("code", {}, name)), prose(schema.description), fieldsTable(name, schema));
}

/** A schema on one line: its type, or a link to it. */
export function typeOf(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return element("a", { href: `#schema-${name}` }, name);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.flatMap((each, index) => (index ? [" or ", typeOf(each)] : [typeOf(each)]));
  const types = [schema.type ?? "any value"].flat();
  return types.flatMap((type, index) => [index ? " or " : "", named(type, schema)]);
}

function named(type, schema) {
  if (type === "array") return ["array of ", schema.items ? typeOf(schema.items) : "values"];
  if (type === "object" && schema.properties) return ["object { ", Object.keys(schema.properties).join(", "), " }"];
  if (type === "object" && schema.additionalProperties) return ["object of ", typeOf(schema.additionalProperties)];
  if (schema.contentSchema) return ["string of JSON: ", typeOf(schema.contentSchema)];
  if (schema.contentMediaType) return `bytes (${schema.contentMediaType})`;
  return schema.enum ? schema.enum.join(", ") : type;
}

function fieldsTable(name, schema) {
  const fields = Object.entries(schema.properties ?? {});
  if (!fields.length) return element("p", {}, typeOf(schema));
  const row = ([field, value]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, element("code", {}, field), schema.required?.includes(field) ? element("span", { class: "docs-required" }, "required") : null),
      element("td", {}, typeOf(value), limits(value), prose(value.description)),
    );
  return element("table", { class: "table docs-table", "aria-label": `Fields of ${name}` }, element("tbody", {}, fields.map(row)));
}

function limits(schema) {
  const found = [];
  if (schema.minimum !== undefined) found.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) found.push(`to ${schema.maximum}`);
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") found.push(`default ${JSON.stringify(schema.default)}`);
  return found.length ? element("span", { class: "muted" }, ` ${found.join(" ")}`) : null;
}

/** A paragraph of a description; null without one. */
export function prose(text, attributes = { class: "docs-prose" }) {
  return text ? element("p", attributes, words(text)) : null;
}

/** A text whose parts between backticks are code. */
function words(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}
