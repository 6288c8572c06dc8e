/** The result of a form's calls: running, answer or error. Of several calls, the newest counts. */

import { element, replace } from "../dom.js";

const NO_CALL = "The answer appears here.";

/**
 * The panel of the result.
 *
 * @param before nodes at its top.
 * @returns `{node, result, run(call, show), fail(message), reset(), stop()}`. `result` holds the
 *   answer; it is emptied at a failure, so that no older answer stands beside an error. Result,
 *   latency and error are live regions.
 */
export function callStatus(...before) {
  const line = element("p", { class: "muted call-line", role: "status" }, NO_CALL);
  const problem = element("p", { class: "error", "aria-live": "assertive" });
  const result = element("div", { class: "result", "aria-live": "polite" });
  let newest = 0;
  let abort = null;

  function begin() {
    abort?.abort();
    abort = new AbortController();
    newest += 1;
    problem.textContent = "";
    return newest;
  }

  function showProblem(message) {
    line.textContent = "";
    replace(result);
    problem.textContent = message;
  }

  return {
    node: element("section", { class: "panel", "aria-label": "Result" }, before, line, problem, result),
    result,

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
        showProblem(error.message);
      }
    },

    /** Show an error of the form itself, without a call. */
    fail(message) {
      begin();
      showProblem(message);
    },

    /** Forget the calls and their results. */
    reset() {
      begin();
      line.textContent = NO_CALL;
      replace(result);
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
