import assert from "node:assert/strict";
import { test } from "node:test";

import { centreOfMass, digitPicture, drawableSide, lookOf } from "./static/playground/digit_picture.js";
import { SAMPLE_DIGITS } from "./static/playground/sample_digits.js";

const MNIST = lookOf({ training: { data: "mnist" } });
const DIGITS = lookOf({ training: { data: "digits" } });

/** The box of the pixels that are at least half as bright as white: [left, top, right, bottom]. */
function boxOf(picture, side) {
  const bright = [...picture].flatMap((value, at) => (value >= 128 ? [[at % side, Math.floor(at / side)]] : []));
  const [xs, ys] = [0, 1].map((axis) => bright.map((pixel) => pixel[axis]));
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs) + 1, Math.max(...ys) + 1];
}

for (const side of [28, 32]) {
  test(`each digit fills MNIST's box of 20 pixels, its mass in the middle of ${side}`, () => {
    for (const strokes of SAMPLE_DIGITS) {
      const picture = digitPicture(strokes, side, MNIST);

      const [left, top, right, bottom] = boxOf(picture, side);
      const longer = Math.max(right - left, bottom - top);
      assert.ok(longer >= 19 && longer <= 21, `the longer side is ${longer}`);
      for (const place of centreOfMass(picture, side)) assert.ok(Math.abs(place - side / 2) < 0.15, `the mass is at ${place}`);
    }
  });
}

test("a digit whose mass is far from its middle is not cut off", () => {
  const seven = [[[20, 20], [80, 20], [40, 80]]];
  for (const look of [MNIST, DIGITS]) {
    for (const strokes of [seven, ...SAMPLE_DIGITS]) {
      const [left, top, right, bottom] = boxOf(digitPicture(strokes, 28, look), 28);
      const longer = Math.max(right - left, bottom - top);

      assert.ok(Math.abs(longer - look.box) <= 1, `the longer side is ${longer} of ${look.box}`);
    }
  }
});

test("size and place of a drawing change nothing", () => {
  const moved = SAMPLE_DIGITS[3].map((stroke) => stroke.map(([x, y]) => [7 + x / 4, 90 + y / 4]));

  const [expected, found] = [SAMPLE_DIGITS[3], moved].map((strokes) => digitPicture(strokes, 28, MNIST));

  expected.forEach((value, at) => assert.ok(Math.abs(value - found[at]) <= 1));
});

test("the line is as thick as the look says", () => {
  for (const look of [MNIST, DIGITS]) {
    const picture = digitPicture([[[50, 0], [50, 100]]], 28, look);

    const row = picture.slice(14 * 28, 15 * 28).reduce((sum, value) => sum + value, 0) / 255;
    assert.ok(Math.abs(row - look.line) < 0.3, `${row} of ${look.line}`);
  }
});

test("a dot is a dot, and no stroke is no picture", () => {
  const [left, top, right, bottom] = boxOf(digitPicture([[[3, 5]]], 28, MNIST), 28);

  assert.ok(right - left <= 3 && bottom - top <= 3);
  assert.equal(digitPicture([], 28, MNIST), null);
  assert.equal(digitPicture([[]], 28, MNIST), null);
});

test("only small grey squares are drawn", () => {
  const side = (height, width, channels) => drawableSide({ preprocessing: { height, width, channels } });

  assert.deepEqual([side(28, 28, 1), side(32, 32, 1), side(28, 28, 3), side(28, 32, 1), side(224, 224, 1)], [28, 32, 0, 0, 0]);
});

test("a contract without training has MNIST's look", () => {
  assert.equal(lookOf({}), MNIST);
  assert.equal(lookOf({ training: null }), MNIST);
});
