/**
 * Drawn strokes as the picture of a digit that a model was trained on. No DOM.
 *
 * A model reads what looks like its training pictures, whatever the size and the place of the
 * drawing. So the strokes, not their pixels, are scaled, and the line always has the training
 * pictures' thickness.
 */

/**
 * The look of the digits of a data set, in pixels of its pictures: the square that a digit fills,
 * the thickness of its line, and the width over which the line's edge fades.
 */
const LOOKS = {
  // LeCun et al., 1998, section III-A.
  mnist: { box: 20, line: 2.4, edge: 1 },
  // scikit-learn's digits fill 8 x 8 pixels, which Weir enlarges to 24 x 24: their lines are thick,
  // and their soft edges lie within that.
  digits: { box: 22, line: 4.2, edge: 3 },
};

/** The look of the digits that a bundle was trained on; MNIST's if the contract names no other. */
export function lookOf(contract) {
  return LOOKS[contract.training?.data] ?? LOOKS.mnist;
}

/** The side of the pictures that can be drawn for a model; 0 if its pictures are not of that kind. */
export function drawableSide(contract) {
  const { height, width, channels } = contract.preprocessing;
  return channels === 1 && height === width && (height === 28 || height === 32) ? height : 0;
}

/**
 * The picture of strokes, white on black, with their centre of mass in its middle, as far as the
 * square that a digit fills stays within the picture.
 *
 * @param strokes lists of points [x, y], in any unit, y downwards.
 * @param side height and width of the picture.
 * @returns side x side values of 0 to 255, rows from the top; null if there is no stroke.
 */
export function digitPicture(strokes, side, look) {
  const drawn = strokes.filter((stroke) => stroke.length > 0);
  if (drawn.length === 0) return null;
  const fitted = moved(fit(drawn, look.box - look.line), side / 2, side / 2);
  const [x, y] = centreOfMass(raster(fitted, side, look), side);
  const room = (side - look.box) / 2;
  const [right, down] = [x, y].map((place) => Math.min(Math.max(side / 2 - place, -room), room));
  return raster(moved(fitted, right, down), side, look);
}

/** The centre of mass [x, y] of a picture, in pixels from its corner. */
export function centreOfMass(picture, side) {
  let mass = 0;
  let x = 0;
  let y = 0;
  picture.forEach((value, at) => {
    mass += value;
    x += value * ((at % side) + 0.5);
    y += value * (Math.floor(at / side) + 0.5);
  });
  return [x / mass, y / mass];
}

/** Strokes scaled so that the longer side of their box is `length`, around the origin. */
function fit(strokes, length) {
  const xs = strokes.flat().map(([x]) => x);
  const ys = strokes.flat().map(([, y]) => y);
  const [left, right] = extent(xs);
  const [top, bottom] = extent(ys);
  const longer = Math.max(right - left, bottom - top);
  const scale = longer > 0 ? length / longer : 1;
  return strokes.map((stroke) => stroke.map(([x, y]) => [(x - (left + right) / 2) * scale, (y - (top + bottom) / 2) * scale]));
}

function extent(values) {
  // A spread argument list has a limit, and a long drawing has many points.
  return values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
}

function moved(strokes, right, down) {
  return strokes.map((stroke) => stroke.map(([x, y]) => [x + right, y + down]));
}

/** Anti-aliased lines: a pixel's brightness falls with its distance from the line. */
function raster(strokes, side, { line, edge }) {
  const segments = strokes.flatMap((stroke) => stroke.map((point, at) => [stroke[Math.max(at - 1, 0)], point]));
  const picture = new Uint8ClampedArray(side * side);
  for (let at = 0; at < picture.length; at += 1) {
    const point = [(at % side) + 0.5, Math.floor(at / side) + 0.5];
    let nearest = Infinity;
    for (const [from, to] of segments) nearest = Math.min(nearest, squaredDistance(point, from, to));
    picture[at] = 255 * Math.min(Math.max((line / 2 - Math.sqrt(nearest)) / edge + 0.5, 0), 1);
  }
  return picture;
}

/** The squared distance of a point from a segment. */
function squaredDistance([x, y], [fromX, fromY], [toX, toY]) {
  const [alongX, alongY] = [toX - fromX, toY - fromY];
  const squaredLength = alongX ** 2 + alongY ** 2;
  const share = squaredLength > 0 ? ((x - fromX) * alongX + (y - fromY) * alongY) / squaredLength : 0;
  const held = Math.min(Math.max(share, 0), 1);
  return (x - fromX - held * alongX) ** 2 + (y - fromY - held * alongY) ** 2;
}
