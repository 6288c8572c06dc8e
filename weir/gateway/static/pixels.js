/** Numbers as pixels: bytes in base64, drawn on canvases of one pixel a number. */

import { element } from "./dom.js";

/** The bytes of a base64 text. */
export function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/**
 * A canvas of pixels; the style sheet scales it.
 *
 * @param colour the red, green and blue of a pixel, by its index.
 */
export function picture(width, height, colour) {
  const canvas = element("canvas", { width, height, class: "pixels", "aria-hidden": "true" });
  paint(canvas, colour);
  return canvas;
}

/** Draw the pixels of a canvas anew. */
export function paint(canvas, colour) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let at = 0; at < canvas.width * canvas.height; at++) {
    image.data.set([...colour(at), 255], 4 * at);
  }
  context.putImageData(image, 0, 0);
}

/** The red, green and blue of a colour that the style sheet has in a variable, as #rrggbb. */
export function variable(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16));
}
