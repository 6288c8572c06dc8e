import assert from "node:assert/strict";
import { test } from "node:test";

import { niceScale } from "./static/playground/forecast_chart.js";

for (const [least, most] of [[0, 1], [112, 622], [-0.3, 0.2], [5, 5], [0, 0], [-7, -7], [1e-9, 3e-9], [1e12, 1.1e12]]) {
  test(`the scale of ${least} to ${most} covers it with few ticks`, () => {
    const { from, to, ticks } = niceScale(least, most);

    assert.ok(from <= least && to >= most && from < to);
    assert.ok(ticks.length >= 2 && ticks.length <= 8, `${ticks}`);
  });
}
