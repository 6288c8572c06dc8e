/**
 * The page: its views by the address's hash, and the poll that keeps them up to date.
 *
 *   #/               the models and the charts
 *   #/models/NAME    one model: its facts, "Try it" and "Network"
 *
 * Every two seconds the models and the metrics are read again, each on its own: a server whose
 * metrics cannot be read still lists its models. After a failure the last models stay on the page,
 * marked as old, until a poll succeeds.
 */

import { getJson, setToken, token, UNAUTHENTICATED } from "./api.js";
import { element, replace, setText } from "./dom.js";
import { History } from "./history.js";
import { modelView } from "./model_view.js";
import { overview } from "./overview.js";
import { signIn } from "./sign_in.js";
import { ageInWords, providerName } from "./words.js";

const POLL_MS = 2000;
const TIMEOUT_MS = 10_000;

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const signOut = document.getElementById("sign-out");

/** What the views show; `problem` and `metricsProblem` are empty while all is well. */
const state = { models: null, server: null, target: "", usesTls: false, readAt: null, problem: "", metricsProblem: "", history: new History() };

let view = null;
let timer = 0;
let isSigningIn = false;

function route() {
  if (isSigningIn) return;
  view?.close();
  const found = /^#\/models\/([^/]+)$/.exec(location.hash);
  view = found ? modelView(decodeURIComponent(found[1])) : overview();
  document.title = found ? `${decodeURIComponent(found[1])} · Weir` : "Weir";
  replace(main, view.node);
  view.update(state);
}

async function poll() {
  clearTimeout(timer);
  const options = () => ({ signal: AbortSignal.timeout(TIMEOUT_MS) });
  await Promise.all([readModels(options()), readMetrics(options())]);
  if (isSigningIn) return;
  show();
  timer = setTimeout(poll, POLL_MS);
}

async function readModels(options) {
  try {
    const { models, server, target, tls } = await getJson("/page/models", options);
    Object.assign(state, { models, server, target: reachable(target), usesTls: tls, problem: "", readAt: new Date() });
  } catch (error) {
    state.problem = error.message;
  }
}

/** A server that listens on every address of its machine is called at this page's host. */
function reachable(target) {
  return target.replace(/^(0\.0\.0\.0|\[::\])(?=:\d+$)/, location.hostname);
}

async function readMetrics(options) {
  try {
    const scrape = await getJson("/page/metrics", options);
    state.metricsProblem = [scrape.problem, ...scrape.servers.map((server) => server.problem)].filter(Boolean).join("; ");
    state.history.add(scrape);
  } catch (error) {
    state.metricsProblem = error.message;
    state.history.miss(Date.now() / 1000);
  }
}

function show() {
  signOut.hidden = !token();
  banner.hidden = !state.problem;
  setText(banner, state.problem && bannerText());
  main.classList.toggle("is-old", Boolean(state.problem));
  showServer();
  view.update(state);
}

function bannerText() {
  const shown = state.readAt ? ` What is shown is from ${state.readAt.toLocaleTimeString()}.` : "";
  return `${capital(state.problem)}. The page tries again every ${POLL_MS / 1000} seconds.${shown}`;
}

function showServer() {
  setText(document.getElementById("target"), state.target);
  const server = state.server;
  if (!server) return;
  const facts = [
    ["Weir", server.version],
    ["Models run on", providerName(server.provider)],
    ["ONNX Runtime", server.onnxruntime],
    ["Transport", server.transport],
    ["Cores", server.usable_cores || ""],
    ["Running for", ageInWords(server.started)],
    ["Problem", server.transport_problem],
  ];
  replace(
    document.getElementById("server"),
    facts.filter(([, value]) => value).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function askForToken() {
  if (isSigningIn) return;
  isSigningIn = true;
  clearTimeout(timer);
  view?.close();
  view = null;
  banner.hidden = true;
  main.classList.remove("is-old");
  document.title = "Sign in · Weir";
  replace(
    main,
    signIn(() => {
      isSigningIn = false;
      route();
      poll();
    }),
  );
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

signOut.addEventListener("click", () => {
  setToken("");
  Object.assign(state, { models: null, server: null, history: new History() });
  replace(document.getElementById("server"));
  askForToken();
});
document.addEventListener(UNAUTHENTICATED, askForToken);
window.addEventListener("hashchange", () => {
  route();
  main.focus();
});
// A hidden page would be polled at the browser's pace; the gap shows in the charts.
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden && !isSigningIn) poll();
});

route();
poll();
