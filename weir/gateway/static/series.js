/**
 * What the charts show, computed from two scrapes of the servers' metrics. No DOM.
 *
 * A scrape is the answer of /page/metrics: raw counters and histograms by server and model. A
 * sample is what happened between two scrapes.
 */

/** Scrapes that lie further apart make no sample: the time between them is a gap. */
export const MAX_INTERVAL_S = 10;

/**
 * The sample between two scrapes, of one model or of all (an empty name).
 *
 * A value is null where nothing was measured, for example a latency while no request ended.
 * Returns null if the scrapes are too far apart, or no server is in both.
 */
export function sample(before, after, model = "") {
  const interval_s = after.time_s - before.time_s;
  const pairs = pairsOf(before, after, model);
  if (!(interval_s > 0 && interval_s <= MAX_INTERVAL_S) || pairs === null) return null;
  const latency = growthOfHistogram(pairs, "latency");
  const batches = growthOfHistogram(pairs, "batch_rows");
  const input = growth(pairs, (counts) => counts.input_tokens);
  const padded = growth(pairs, (counts) => counts.padded_tokens);
  const tokens = growth(pairs, (counts) => counts.generation_tokens);
  return {
    time_s: after.time_s,
    requests_per_s: (growth(pairs, (counts) => total(counts.requests)) ?? 0) / interval_s,
    failures_per_s: failures(pairs, interval_s),
    p50_s: latency && quantile(0.5, latency.bounds, latency.counts),
    p99_s: latency && quantile(0.99, latency.bounds, latency.counts),
    batch_rows: batches && batches.count > 0 ? batches.sum / batches.count : null,
    queued_rows: pairs.reduce((rows, { after: counts }) => rows + (counts.queue_rows ?? 0), 0),
    padding_share: padded ? Math.max(0, 1 - input / padded) : null,
    tokens_per_s: tokens === null ? null : tokens / interval_s,
  };
}

/**
 * The quantile of a histogram, as Prometheus's histogram_quantile: linear within a bucket.
 *
 * @param bounds upper bounds of the buckets, without the last, which is infinite.
 * @param counts cumulative counts; one more than bounds.
 */
export function quantile(q, bounds, counts) {
  const all = counts.at(-1);
  if (!(all > 0)) return null;
  const rank = q * all;
  const bucket = counts.findIndex((count) => count >= rank);
  if (bucket >= bounds.length) return bounds.at(-1);
  const lower = bucket > 0 ? bounds[bucket - 1] : 0;
  const below = bucket > 0 ? counts[bucket - 1] : 0;
  return lower + ((bounds[bucket] - lower) * (rank - below)) / (counts[bucket] - below);
}

/** The growth of a counter. One that fell began again at 0: its server or version was restarted. */
export function counterGrowth(before, after) {
  return after < before ? after : after - before;
}

/** The names of all models in a scrape. */
export function modelNames(scrape) {
  const names = scrape.servers.flatMap((server) => server.models.map((counts) => counts.model));
  return [...new Set(names)].filter(Boolean).sort();
}

/** Counts of the same server, model and version in both scrapes; null if no server is in both. */
function pairsOf(before, after, model) {
  const pairs = [];
  let isKnown = false;
  for (const server of after.servers) {
    const earlier = before.servers.find(({ address }) => address === server.address);
    if (!earlier || earlier.problem || server.problem) continue;
    isKnown = true;
    for (const counts of server.models) {
      if (model && counts.model !== model) continue;
      const same = earlier.models.find(
        (other) => other.model === counts.model && other.version === counts.version,
      );
      // A version that is new since the last scrape has counted from 0.
      pairs.push({ before: same ?? {}, after: counts });
    }
  }
  return isKnown ? pairs : null;
}

/** The growth of a count over all pairs; null if no pair has it. */
function growth(pairs, value) {
  let sum = null;
  for (const { before, after } of pairs) {
    const now = value(after);
    if (now !== undefined && now !== null) sum = (sum ?? 0) + counterGrowth(value(before) ?? 0, now);
  }
  return sum;
}

function growthOfHistogram(pairs, name) {
  let grown = null;
  for (const { before, after } of pairs) {
    const now = after[name];
    if (!now) continue;
    grown ??= { bounds: now.bounds, counts: now.counts.map(() => 0), sum: 0, count: 0 };
    const isReset = before[name] && now.count < before[name].count;
    const then = isReset ? undefined : before[name];
    now.counts.forEach((count, bucket) => (grown.counts[bucket] += count - (then?.counts[bucket] ?? 0)));
    grown.sum += now.sum - (then?.sum ?? 0);
    grown.count += now.count - (then?.count ?? 0);
  }
  return grown;
}

/** Failures per second by reason; reasons without a failure are absent. */
function failures(pairs, interval_s) {
  const rates = {};
  for (const { before, after } of pairs) {
    for (const [reason, count] of Object.entries(after.failures ?? {})) {
      const grown = counterGrowth(before.failures?.[reason] ?? 0, count);
      if (grown > 0) rates[reason] = (rates[reason] ?? 0) + grown / interval_s;
    }
  }
  return rates;
}

function total(counts) {
  return counts && Object.values(counts).reduce((sum, count) => sum + count, 0);
}
