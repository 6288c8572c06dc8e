/** Values of the server in words. No DOM. */

/** The state of a version. */
export function stateInWords(version) {
  const words = { READY: "ready", LOADING: "loading", UNLOADING: "unloading", UNAVAILABLE: "not served" };
  return words[version.state] ?? version.state.toLowerCase();
}

/** The comparison with the original when the bundle was made: PyTorch's network, or the imported file. */
export function parityInWords(parity) {
  if (parity === null) return "outputs were not compared with the original's";
  if (parity === 0) return "outputs equal the original's";
  return `outputs differ from the original's by at most ${short(parity)}`;
}

/** The golden test: the recorded inputs run when the version was loaded. */
export function goldenInWords(golden) {
  if (golden === null) return "none";
  return `passed: outputs differ from the recorded ones by at most ${short(golden)}`;
}

/** Both checks for a narrow column. */
export function parityInBrief(parity) {
  return parity === null ? "not compared" : difference(parity);
}

export function goldenInBrief(golden) {
  return golden === null ? "none" : `passed, ${difference(golden)}`;
}

/** An ONNX Runtime execution provider. */
export function providerName(provider) {
  return { cpu: "CPU", cuda: "CUDA" }[provider] ?? provider;
}

/** How a version runs. */
export function providerInWords(version) {
  if (!version.provider) return "";
  const name = providerName(version.provider);
  if (!version.threads) return name;
  const threads = counted(version.threads, "thread");
  return `${name}, ${threads}, ${counted(version.instances, "batch", "batches")} at a time`;
}

/** Whether requests share batches. */
export function batchingInWords(version) {
  if (version.is_batched === null) return "";
  if (version.is_batched) return "requests share batches";
  return `requests run one at a time: ${version.batching_reason}`;
}

/** The time since an ISO time, in its largest unit. */
export function ageInWords(since, now_ms = Date.now()) {
  const seconds = Math.max(0, (now_ms - Date.parse(since)) / 1000);
  for (const [unit_s, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit_s) return `${Math.floor(seconds / unit_s)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

/** A duration with its unit: µs, ms or s. */
export function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 0.001) return `${significant(seconds * 1e6)} µs`;
  if (seconds < 1) return `${significant(seconds * 1e3)} ms`;
  return `${significant(seconds)} s`;
}

/** A number with three significant digits, and no exponent. */
export function significant(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(digits, 6) });
}

/** A share as a percentage. */
export function percent(share) {
  return `${significant(share * 100)} %`;
}

/** A reason or a status for reading: `queue_full` as `queue full`. */
export function spaced(name) {
  return name.replaceAll("_", " ");
}

/** A number and its noun. */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

function difference(value) {
  return value === 0 ? "equal" : `≤ ${short(value)}`;
}

/** A difference with two digits, as `weir models` writes it. */
function short(value) {
  return value === 0 ? "0" : value.toExponential(1).replace("e+", "e");
}
