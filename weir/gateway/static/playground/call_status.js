/** The state of a form's calls: running, latency or error. Of several calls, the newest counts. */

import { element } from "../dom.js";

/**
 * @returns `{nodes, run(call, show), fail(message), reset(), stop()}`. `nodes` are a line with the
 *   latency and one with the error, both live regions.
 */
export function callStatus() {
  const line = element("p", { class: "muted call-line", role: "status" });
  const problem = element("p", { class: "error", "aria-live": "assertive" });
  let newest = 0;
  let abort = null;

  function begin() {
    abort?.abort();
    abort = new AbortController();
    newest += 1;
    problem.textContent = "";
    return newest;
  }

  return {
    nodes: [line, problem],

    /**
     * Make a call and show its answer, unless a newer call has begun.
     *
     * @param call a function of an AbortSignal and of `isNewest()`, which promises the answer.
     * @param show is called with the answer; what it returns is added to the latency.
     */
    async run(call, show) {
      const own = begin();
      const isNewest = () => own === newest;
      line.textContent = "Running …";
      const started_ms = performance.now();
      try {
        const answer = await call(abort.signal, isNewest);
        if (!isNewest()) return;
        const latency_ms = performance.now() - started_ms;
        const more = show(answer);
        line.textContent = `Answer in ${milliseconds(latency_ms)}${more ? `, ${more}` : ""}`;
      } catch (error) {
        if (!isNewest() || error.name === "AbortError") return;
        line.textContent = "";
        problem.textContent = error.message;
      }
    },

    /** Show an error of the form itself, without a call. */
    fail(message) {
      begin();
      line.textContent = "";
      problem.textContent = message;
    },

    /** Forget the running call and show nothing. */
    reset() {
      begin();
      line.textContent = "";
    },

    /** Cancel the running call; nothing is shown any more. */
    stop() {
      newest += 1;
      abort?.abort();
    },
  };
}

/** A latency: one decimal below 10 ms. */
export function milliseconds(value_ms) {
  return `${value_ms < 10 ? value_ms.toFixed(1) : Math.round(value_ms)} ms`;
}
