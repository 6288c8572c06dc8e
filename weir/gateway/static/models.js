/** The table of models, and the facts of one model. */

import { element } from "./dom.js";
import {
  ageInWords,
  batchingInWords,
  duration,
  goldenInBrief,
  goldenInWords,
  parityInBrief,
  parityInWords,
  providerInWords,
  significant,
  stateInWords,
} from "./words.js";

// Roles are written out: a narrow page lays rows out as blocks, which takes a table's own away.
const HEADS = ["Model", "State", "Runs on", "Parity", "Golden test", "Requests", "p99"];
const REASON_COLUMNS = 3;

/**
 * The table of all models, a row for each version.
 *
 * @param models of /page/models.
 * @param sampleOf the latest sample of a model by its name, or undefined.
 */
export function modelTable(models, sampleOf) {
  if (models.length === 0) {
    return element("p", { class: "muted" }, "The server has no model, or none that this visitor may see.");
  }
  return element(
    "table",
    { class: "table models", role: "table", "aria-label": "Models" },
    element(
      "thead",
      { role: "rowgroup" },
      element("tr", { role: "row" }, HEADS.map((head) => element("th", { role: "columnheader", scope: "col" }, head))),
    ),
    element("tbody", { role: "rowgroup" }, models.flatMap((model) => modelRows(model, sampleOf(model.name)))),
  );
}

/** The facts of each version of a model. */
export function modelFacts(model) {
  return [
    model.versions.map((version) =>
      element(
        "section",
        { class: "panel version", "aria-label": `Version ${version.version}` },
        element(
          "h3",
          { class: "version-head" },
          `Version ${version.version}`,
          answers(model, version),
          labels(version),
          stateMark(version),
          element("span", { class: "state-age muted" }, `for ${ageInWords(version.since)}`),
        ),
        reason(version),
        element("dl", { class: "facts" }, versionFacts(version).map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
      ),
    ),
    notLoaded(model),
  ];
}

/** How many models answer requests; a count of those that do not is marked. */
export function modelCounts(models) {
  const ready = models.filter(answeringVersion).length;
  const rest = models.length - ready;
  return [`${ready} ready`, rest > 0 && [", ", element("span", { class: "error" }, `${rest} not ready`)]];
}

/** The task of a model. */
export function taskInWords(model) {
  return model.task.replaceAll("-", " ");
}

/** The version that answers requests which name none; undefined if there is none. */
export function answeringVersion(model) {
  return model.versions.find((version) => version.version === model.answering);
}

function modelRows(model, sample) {
  if (model.versions.length === 0) return [row(model, sample, element("span", { class: "state is-off" }, "not loaded"))];
  return model.versions.map((version) => row(model, version.version === model.answering ? sample : undefined, stateMark(version), version));
}

function row(model, sample, state, version) {
  const isLast = version === model.versions.at(-1);
  const about = version && [`version ${version.version}`, " ", answers(model, version), labels(version)];
  const task = model.task && element("span", { class: "muted" }, `${version ? " · " : ""}${taskInWords(model)}`);
  return element(
    "tr",
    { role: "row", "data-model": model.name, "data-version": version?.version },
    element(
      "th",
      { role: "rowheader", scope: "row" },
      element("a", { href: modelHash(model.name) }, model.name),
      " ",
      element("span", {}, about, task),
      isLast && notLoaded(model),
    ),
    cell("State", state),
    version?.reason ? cell("Reason", reason(version), REASON_COLUMNS) : checkCells(version),
    cell("Requests", sample ? `${significant(sample.requests_per_s)}/s` : "–"),
    cell("p99", sample ? duration(sample.p99_s) : "–"),
  );
}

/** How a version runs, and what was checked; empty for one that does not run. */
function checkCells(version) {
  const isReady = version?.state === "READY";
  return [
    cell("Runs on", version && providerInWords(version)),
    cell("Parity", isReady && parityInBrief(version.parity)),
    cell("Golden test", isReady && goldenInBrief(version.golden)),
  ];
}

function cell(head, content, columns = null) {
  return element("td", { role: "cell", "data-head": head, colspan: columns }, element("div", {}, content));
}

function versionFacts(version) {
  const facts = [
    ["Runs on", providerInWords(version)],
    ["Parity", version.state === "READY" ? parityInWords(version.parity) : ""],
    ["Golden test", version.state === "READY" ? goldenInWords(version.golden) : ""],
    ["Batching", batchingInWords(version)],
    ["Not served", version.unserved_outputs.join(", ")],
  ];
  return facts.filter(([, value]) => value);
}

function stateMark(version) {
  const kind = { READY: "good", UNAVAILABLE: "bad" }[version.state] ?? "busy";
  return element("span", { class: `state is-${kind}` }, stateInWords(version));
}

function answers(model, version) {
  const isOne = model.versions.length > 1 && version.version === model.answering;
  return isOne && element("span", { class: "label is-default" }, "default");
}

function labels(version) {
  return version.labels.map((label) => element("span", { class: "label" }, label));
}

function reason(version) {
  return version.reason && element("p", { class: "error reason" }, version.reason);
}

function notLoaded(model) {
  const known = new Set(model.versions.map((version) => version.version));
  const rest = model.on_disk.filter((version) => !known.has(version));
  return rest.length > 0 && element("p", { class: "muted" }, `on disk, not loaded: ${rest.join(", ")}`);
}

/** The address of a model's view. */
export function modelHash(name) {
  return `#/models/${encodeURIComponent(name)}`;
}
