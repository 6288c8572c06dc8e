/** The scrapes of the last two minutes, and the samples of the charts that are made of them. */

import { WINDOW_S } from "./charts.js";
import { modelNames, sample } from "./series.js";

export class History {
  constructor() {
    /** Scrapes in order of time; `{time_s, isMissing: true}` for one that failed. */
    this.scrapes = [];
  }

  /** Add an answer of /page/metrics. One in which no server could be scraped counts as missing. */
  add(scrape) {
    if (this.latest_s >= scrape.time_s) return;
    if (scrape.servers.every((server) => server.problem)) this.miss(scrape.time_s);
    else this.#push(scrape);
  }

  /** Add a scrape that failed. */
  miss(time_s) {
    this.#push({ time_s, isMissing: true });
  }

  get latest_s() {
    return this.scrapes.at(-1)?.time_s ?? 0;
  }

  /** The samples of a model, or of all (an empty name), in order of time. */
  samples(model = "") {
    const samples = [];
    for (let index = 1; index < this.scrapes.length; index += 1) {
      const [before, after] = [this.scrapes[index - 1], this.scrapes[index]];
      if (after.isMissing) samples.push(after);
      else if (before.isMissing) continue;
      else samples.push(sample(before, after, model) ?? { time_s: after.time_s, isMissing: true });
    }
    return samples;
  }

  /** The models of the latest scrape that did not fail. */
  models() {
    const scrape = this.scrapes.findLast((each) => !each.isMissing);
    return scrape ? modelNames(scrape) : [];
  }

  #push(scrape) {
    this.scrapes.push(scrape);
    // The first sample within the window needs the scrape before it.
    const from_s = scrape.time_s - WINDOW_S;
    while (this.scrapes.length > 2 && this.scrapes[1].time_s < from_s) this.scrapes.shift();
  }
}
