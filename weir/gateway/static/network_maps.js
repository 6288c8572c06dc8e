/** The feature maps of a picture: it is dropped or chosen, and each block's maps are drawn. */

import { postBytes } from "./api.js";
import { element, replace, setText } from "./dom.js";
import { pictureDrop } from "./picture_drop.js";
import { bytes, picture } from "./pixels.js";
import { counted } from "./words.js";

/**
 * @param path of the POST.
 * @param size what the model makes of a picture: `{height, width, channels}`.
 */
export function featureMaps(path, size, signal) {
  const status = element("p", { role: "status" });
  const problem = element("p", { class: "error", role: "alert" });
  const result = element("div", { class: "blocks" });
  const zone = pictureDrop("maps-file", show);
  let latest = 0;

  async function show(file) {
    const turn = ++latest;
    setText(problem, "");
    setText(status, `Computing the maps of ${file.name} …`);
    try {
      const answer = await postBytes(path, file, file.type || "application/octet-stream", { signal });
      if (turn !== latest) return;
      replace(result, seen(answer.picture), answer.blocks.map(block));
      setText(status, answer.blocks.length > 0 ? `Maps of ${file.name} after ${counted(answer.blocks.length, "block")}.` : "The network has no block whose output is a picture.");
    } catch (error) {
      if (error.name === "AbortError" || turn !== latest) return;
      replace(result);
      setText(status, "");
      setText(problem, `${error.message}.`);
    }
  }

  return [
    element("p", { class: "muted" }, `What the network makes of a picture, after each block. It sees ${size.height} × ${size.width} pixels ${size.channels === 1 ? "in grey" : "in colour"}. In each map black is the lowest number, white the highest.`),
    zone.node,
    status,
    problem,
    result,
  ];
}

/** The picture as the network gets it. */
function seen({ shape: [height, width, channels], values }) {
  const data = bytes(values);
  const colour = (at) => [0, 1, 2].map((channel) => data[at * channels + (channels === 1 ? 0 : channel)]);
  return figure("The picture", `${height} × ${width}, as the network sees it`, [picture(width, height, colour)], true);
}

function block(found, at) {
  const [maps, height, width] = found.shape;
  const [shown, drawnHeight, drawnWidth] = found.shown;
  const data = bytes(found.values);
  const pixels = drawnHeight * drawnWidth;
  const canvases = Array.from({ length: shown }, (_, map) =>
    picture(drawnWidth, drawnHeight, (pixel) => {
      const grey = data[map * pixels + pixel];
      return [grey, grey, grey];
    }),
  );
  const flat = found.ranges.filter(([low, high]) => low === high).length;
  const some = shown < maps ? `${shown} of ${maps} maps` : counted(maps, "map");
  const low = Math.min(...found.ranges.map((range) => range[0]));
  const high = Math.max(...found.ranges.map((range) => range[1]));
  const facts = [`${some} of ${height} × ${width}`, `from ${low.toFixed(2)} to ${high.toFixed(2)}`.replaceAll("-", "−"), flat > 0 && `${counted(flat, "map")} ${flat === 1 ? "is" : "are"} constant`];
  return figure(`${at + 1}. ${[found.layer, found.operator].filter(Boolean).join(" · ")}`, facts.filter(Boolean).join(", "), canvases, drawnWidth > 32);
}

function figure(title, facts, canvases, isLarge) {
  return element(
    "figure",
    {},
    element("figcaption", {}, element("strong", {}, title), element("span", { class: "muted" }, ` ${facts}`)),
    element("div", { class: `pixel-grid${isLarge ? " is-large" : ""}`, role: "img", "aria-label": `${title}: ${facts}` }, canvases),
  );
}
