/** The form that asks for a token. */

import { setToken, token } from "./api.js";
import { element } from "./dom.js";

/**
 * The form, with its field in focus once it is in the page.
 *
 * @param onToken called when a token was given.
 */
export function signIn(onToken) {
  const field = element("input", {
    id: "token",
    class: "field",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-hint",
  });
  const wasRefused = token() !== "";
  setToken("");
  const submit = (event) => {
    event.preventDefault();
    setToken(field.value.trim());
    onToken();
  };
  const form = element(
    "form",
    { class: "panel sign-in", onsubmit: submit },
    element("h2", {}, "Sign in"),
    wasRefused && element("p", { class: "error", role: "alert" }, "The server does not know this token."),
    element("label", { for: "token" }, "Token"),
    field,
    element("p", { id: "token-hint", class: "muted" }, "One of the server's tokens. It is kept in this tab until the tab is closed."),
    element("button", { class: "button is-primary", type: "submit" }, "Sign in"),
  );
  queueMicrotask(() => field.focus());
  return form;
}
