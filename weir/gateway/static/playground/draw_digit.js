/**
 * The drawing field: mouse, touch, pen or keyboard draw strokes, which become a small PNG.
 *
 * The picture is made a moment after the last change, so that a digit of two strokes is mostly sent
 * once. Sample digits are an alternative to drawing.
 */

import { element } from "../dom.js";
import { digitPicture, drawableSide, lookOf } from "./digit_picture.js";
import { SAMPLE_DIGITS } from "./sample_digits.js";

const FIELD_SIDE = 280;
const LINE = 20;
const KEY_STEP = 10;
const PAUSE_MS = 250;

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * @param onPicture is called with a PNG (a Blob), or with null once the field is cleared.
 * @returns `{node, clear(), stop()}`
 */
export function drawDigit(contract, onPicture) {
  const side = drawableSide(contract);
  const look = lookOf(contract);
  const field = element("canvas", {
    class: "draw-field",
    width: FIELD_SIDE,
    height: FIELD_SIDE,
    tabindex: "0",
    role: "application",
    "aria-label": "Drawing field",
    "aria-describedby": "draw-hint",
  });
  const seen = element("canvas", { class: "draw-seen", width: side, height: side, role: "img", "aria-label": "The picture that the model gets" });
  const pen = element("p", { class: "muted", role: "status" });
  let strokes = [];
  let pointer = null;
  // The keyboard's pen; `isDown` while it draws.
  let key = { x: FIELD_SIDE / 2, y: FIELD_SIDE / 2, isDown: false };
  let timer = 0;

  function paint() {
    const context = field.getContext("2d");
    context.fillStyle = "black";
    context.fillRect(0, 0, FIELD_SIDE, FIELD_SIDE);
    context.strokeStyle = "white";
    context.lineWidth = LINE;
    context.lineCap = "round";
    context.lineJoin = "round";
    for (const stroke of strokes) {
      context.beginPath();
      context.moveTo(...stroke[0]);
      // A line of no length is a dot.
      for (const point of stroke) context.lineTo(...point);
      context.stroke();
    }
    if (document.activeElement === field && pointer === null && field.matches(":focus-visible")) {
      context.strokeStyle = "#e69f00";
      context.lineWidth = 3;
      context.beginPath();
      context.arc(key.x, key.y, key.isDown ? 5 : 10, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  function change() {
    paint();
    clearTimeout(timer);
    timer = setTimeout(send, PAUSE_MS);
  }

  function send() {
    const picture = digitPicture(strokes, side, look);
    if (picture === null) return;
    const pixels = new ImageData(side, side);
    picture.forEach((value, at) => pixels.data.set([value, value, value, 255], 4 * at));
    seen.getContext("2d").putImageData(pixels, 0, 0);
    seen.parentNode.hidden = false;
    seen.toBlob(onPicture, "image/png");
  }

  function place(event) {
    const box = field.getBoundingClientRect();
    return [((event.clientX - box.left) * FIELD_SIDE) / box.width, ((event.clientY - box.top) * FIELD_SIDE) / box.height];
  }

  function pointerDown(event) {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    field.setPointerCapture(pointer);
    key.isDown = false;
    clearTimeout(timer);
    strokes.push([place(event)]);
    paint();
  }

  function pointerMove(event) {
    if (event.pointerId !== pointer) return;
    // Browsers gather the moves between two frames into one event.
    const events = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1).push(...(events.length > 0 ? events : [event]).map(place));
    paint();
  }

  function pointerUp(event) {
    if (event.pointerId !== pointer) return;
    pointer = null;
    change();
  }

  function keyDown(event) {
    const move = MOVES[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || (!move && event.key !== " ")) return;
    event.preventDefault();
    if (event.key === " ") {
      if (event.repeat) return;
      key.isDown = !key.isDown;
      if (key.isDown) strokes.push([[key.x, key.y]]);
      pen.textContent = key.isDown ? "The pen draws." : "The pen is up.";
    } else {
      key.x = Math.min(Math.max(key.x + KEY_STEP * move[0], LINE / 2), FIELD_SIDE - LINE / 2);
      key.y = Math.min(Math.max(key.y + KEY_STEP * move[1], LINE / 2), FIELD_SIDE - LINE / 2);
      if (key.isDown) strokes.at(-1).push([key.x, key.y]);
    }
    if (key.isDown || event.key === " ") change();
    else paint();
  }

  function clear() {
    clearTimeout(timer);
    strokes = [];
    key.isDown = false;
    pen.textContent = "";
    seen.parentNode.hidden = true;
    paint();
    onPicture(null);
  }

  function sample(digit) {
    clear();
    strokes = SAMPLE_DIGITS[digit].map((stroke) => stroke.map(([x, y]) => [(x * FIELD_SIDE) / 100, (y * FIELD_SIDE) / 100]));
    paint();
    send();
  }

  for (const [name, listener] of Object.entries({
    pointerdown: pointerDown,
    pointermove: pointerMove,
    pointerup: pointerUp,
    pointercancel: pointerUp,
    keydown: keyDown,
    focus: paint,
    blur: paint,
  })) {
    field.addEventListener(name, listener);
  }
  const samples = SAMPLE_DIGITS.map((_, digit) =>
    element("button", { class: "button", type: "button", "aria-label": `Sample ${digit}`, onclick: () => sample(digit) }, digit),
  );
  const node = element(
    "div",
    { class: "draw" },
    field,
    element(
      "div",
      { class: "draw-side" },
      element("button", { class: "button", type: "button", onclick: clear }, "Clear"),
      element("div", { class: "draw-seen-box", hidden: true }, seen, element("span", { class: "muted" }, "what the model gets")),
    ),
    element("p", { id: "draw-hint", class: "muted" }, "Draw with mouse, finger or pen. With the keyboard: arrow keys move the pen, the space bar puts it down and lifts it."),
    pen,
    element("div", { class: "samples", role: "group", "aria-label": "Sample digits" }, element("span", { class: "muted" }, "Or take one:"), samples),
  );
  paint();
  return { node, clear, stop: () => clearTimeout(timer) };
}
