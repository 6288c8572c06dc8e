/**
 * Calls of the gateway, with the token of the sign-in.
 *
 * A call that fails throws ApiError. If the gateway asks for a token, the document also gets the
 * event `UNAUTHENTICATED`, at which the page shows its sign-in.
 */

export const UNAUTHENTICATED = "weir:unauthenticated";

const TOKEN = "weir.token";

/** A call that failed. `httpStatus` is 0 if the gateway cannot be reached. */
export class ApiError extends Error {
  constructor(httpStatus, status, message) {
    super(message);
    this.name = "ApiError";
    this.httpStatus = httpStatus;
    /** The gRPC status, such as NOT_FOUND; empty if the answer has none. */
    this.status = status;
  }
}

/** The token of this tab; an empty text if there is none. */
export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

/** Keep a token until the tab is closed; an empty text removes it. */
export function setToken(value) {
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

/** The JSON of a GET. `options` are those of fetch, such as `signal`. */
export async function getJson(path, options = {}) {
  return read(await call(path, options));
}

/** The JSON that a POST of a JSON body answers. */
export async function postJson(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return read(await call(path, { ...options, method: "POST", headers, body: JSON.stringify(body) }));
}

/** The JSON that a POST of bytes (an ArrayBuffer, a typed array or a Blob) answers. */
export async function postBytes(path, bytes, type, options = {}) {
  const headers = { "Content-Type": type };
  return read(await call(path, { ...options, method: "POST", headers, body: bytes }));
}

/**
 * POST a JSON body and read the server-sent events of the answer, until it ends.
 *
 * @param onEvent called with the name of each event and its data, parsed as JSON.
 */
export async function streamEvents(path, body, onEvent, options = {}) {
  const response = await call(path, {
    ...options,
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(body),
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await whileConnected(() => reader.read());
    if (done) return;
    const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = events.pop();
    for (const event of events) deliver(event, onEvent);
  }
}

function deliver(event, onEvent) {
  let name = "message";
  const data = [];
  for (const line of event.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  if (data.length > 0) onEvent(name, JSON.parse(data.join("\n")));
}

async function call(path, options) {
  const headers = new Headers(options.headers);
  if (token()) headers.set("Authorization", `Bearer ${token()}`);
  const response = await whileConnected(() => fetch(path, { cache: "no-store", ...options, headers }));
  if (!response.ok) throw await failure(response);
  return response;
}

async function read(response) {
  const text = await whileConnected(() => response.text());
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(response.status, "", "the gateway's answer is not JSON");
  }
}

async function failure(response) {
  const body = await response.json().catch(() => ({}));
  const message = body.error ?? `${response.status} ${response.statusText}`.trim();
  const error = new ApiError(response.status, body.status ?? "", message);
  if (error.httpStatus === 401) {
    document.dispatchEvent(new CustomEvent(UNAUTHENTICATED, { detail: error }));
  }
  return error;
}

async function whileConnected(step) {
  try {
    return await step();
  } catch (error) {
    // A caller that aborts its own call knows why.
    if (error.name === "AbortError") throw error;
    if (error.name === "TimeoutError") throw new ApiError(0, "", "the gateway does not answer");
    throw new ApiError(0, "", "the gateway cannot be reached");
  }
}
