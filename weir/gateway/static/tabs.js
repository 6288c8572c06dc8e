/** Tabs as the WAI-ARIA practices describe them: arrow keys move, and the tab in focus is chosen. */

import { element } from "./dom.js";

/**
 * @param entries `{key, title, open(panel)}`. `open` is called when a tab is first chosen.
 * @param label what the tabs are of.
 */
export function tabs(label, entries) {
  const parts = entries.map(({ key, title, open }) => {
    const panel = element("div", { id: `panel-${key}`, class: "tab-panel", role: "tabpanel", "aria-labelledby": `tab-${key}`, hidden: true });
    const tab = element(
      "button",
      { id: `tab-${key}`, class: "tab", type: "button", role: "tab", "aria-controls": panel.id, onclick: () => choose(key) },
      title,
    );
    return { key, tab, panel, open, isOpen: false };
  });

  function choose(key) {
    for (const part of parts) {
      const isChosen = part.key === key;
      part.tab.setAttribute("aria-selected", String(isChosen));
      part.tab.tabIndex = isChosen ? 0 : -1;
      part.panel.hidden = !isChosen;
      if (isChosen && !part.isOpen) {
        part.isOpen = true;
        part.open(part.panel);
      }
    }
  }

  function move(event) {
    const now = parts.findIndex((part) => part.tab === document.activeElement);
    const last = parts.length - 1;
    const next = { ArrowRight: now === last ? 0 : now + 1, ArrowLeft: now === 0 ? last : now - 1, Home: 0, End: last }[event.key];
    if (now < 0 || next === undefined) return;
    event.preventDefault();
    choose(parts[next].key);
    parts[next].tab.focus();
  }

  const list = element("div", { class: "tabs", role: "tablist", "aria-label": label, onkeydown: move }, parts.map((part) => part.tab));
  choose(parts[0].key);
  return element("div", {}, list, parts.map((part) => part.panel));
}
