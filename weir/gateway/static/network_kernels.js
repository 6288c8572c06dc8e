/** The kernels of a convolution: a picture each, one colour below zero and another above. */

import { element } from "./dom.js";
import { bytes, paint, picture, variable } from "./pixels.js";
import { counted } from "./words.js";

const MOST_PLANES = 8;

/** @param found `convolution` of /page/models/NAME/kernels. */
export function kernels(found, signal) {
  const [outputs, inputs, height, width] = found.shape;
  const [shownKernels, shownInputs] = found.shown;
  const values = bytes(found.values);
  const of = (kernel, input, y, x) => values[((kernel * shownInputs + input) * height + y) * width + x];
  const isLine = height === 1;
  const planes = isLine ? shownInputs : Math.min(shownInputs, MOST_PLANES);
  // A convolution over lines: a row for each input. Otherwise the inputs stand side by side, with a
  // column between them.
  const columns = isLine ? width : planes * width + planes - 1;
  const rows = isLine ? planes : height;

  const canvases = Array.from({ length: shownKernels }, () => picture(columns, rows, () => [0, 0, 0]));
  function draw() {
    const [below, zero, above, gap] = ["--kernel-below", "--kernel-zero", "--kernel-above", "--surface"].map(variable);
    canvases.forEach((canvas, kernel) =>
      paint(canvas, (at) => {
        const [x, y] = [at % columns, Math.floor(at / columns)];
        if (isLine) return mixed(of(kernel, y, 0, x) / 127.5 - 1, below, zero, above);
        const [input, within] = [Math.floor(x / (width + 1)), x % (width + 1)];
        return within === width ? gap : mixed(of(kernel, input, y, within) / 127.5 - 1, below, zero, above);
      }),
    );
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal });

  const some = shownKernels < outputs ? `${shownKernels} of ${outputs} kernels` : counted(outputs, "kernel");
  const size = isLine ? `${width} steps` : `${height} × ${width}`;
  const over = planes < inputs ? `, for the first ${planes} of ${inputs} channels` : `, for ${counted(inputs, "channel")}`;
  const facts = `${some} of ${size}${over}`;
  const range = `from ${short(found.minimum)} to ${short(found.maximum)}`;
  const grid = element("div", { class: `pixel-grid${columns > 2 * rows ? " is-wide" : ""}`, role: "img", "aria-label": `${facts}: weights ${range}` }, canvases);
  return [
    element("p", {}, element("code", {}, found.layer), `: ${facts}; weights ${range}.`),
    element("div", { class: "kernel-scale", "aria-hidden": "true" }, element("span", {}, short(-found.largest)), element("span", { class: "kernel-colours" }), element("span", {}, short(found.largest))),
    grid,
    numbers(found, of, planes),
  ];
}

/** The same as a table, for those who do not see the pictures. */
function numbers(found, of, planes) {
  const [, , height, width] = found.shape;
  const count = planes * height * width;
  const rows = Array.from({ length: found.shown[0] }, (_, kernel) => {
    const all = Array.from({ length: count }, (_, at) => {
      const within = at % (height * width);
      return (of(kernel, Math.floor(at / (height * width)), Math.floor(within / width), within % width) / 127.5 - 1) * found.largest;
    });
    const mean = all.reduce((sum, value) => sum + value, 0) / count;
    return [kernel + 1, Math.min(...all), mean, Math.max(...all)];
  });
  return element(
    "details",
    { class: "numbers" },
    element("summary", {}, "The kernels in numbers"),
    element(
      "table",
      { class: "table" },
      element("thead", {}, element("tr", {}, ["Kernel", "Lowest", "Mean", "Highest"].map((head) => element("th", { scope: "col", class: "number" }, head)))),
      element(
        "tbody",
        {},
        rows.map(([kernel, ...values]) =>
          element("tr", {}, element("th", { scope: "row", class: "number" }, kernel), values.map((value) => element("td", { class: "number" }, short(value)))),
        ),
      ),
    ),
  );
}

/** The colour of a weight from -1 to 1. */
function mixed(weight, below, zero, above) {
  const end = weight < 0 ? below : above;
  const share = Math.min(1, Math.abs(weight));
  return zero.map((channel, at) => channel + share * (end[at] - channel));
}

function short(value) {
  const text = Math.abs(value) >= 0.01 || value === 0 ? value.toFixed(2) : value.toExponential(1);
  return text.replace("-", "−");
}
