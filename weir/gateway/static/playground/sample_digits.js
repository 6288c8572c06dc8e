/** Strokes of the ten digits, by code: the drawing field without drawing. Points in a 100 x 100 box. */

/** A part of an ellipse; degrees go clockwise from the right. */
function arc(centreX, centreY, radiusX, radiusY, from, to) {
  const steps = 24;
  return Array.from({ length: steps + 1 }, (_, at) => {
    const angle = ((from + ((to - from) * at) / steps) * Math.PI) / 180;
    return [centreX + radiusX * Math.cos(angle), centreY + radiusY * Math.sin(angle)];
  });
}

export const SAMPLE_DIGITS = [
  [arc(50, 50, 26, 38, -90, 270)],
  [[[38, 28], [54, 12], [54, 88]]],
  [[...arc(50, 34, 25, 22, -170, 30), [26, 88], [78, 88]]],
  [[...arc(47, 31, 23, 19, -160, 90), ...arc(47, 69, 26, 19, -90, 160)]],
  [[[60, 12], [24, 62], [80, 62]], [[62, 40], [62, 90]]],
  [[[74, 12], [34, 12], [31, 46], ...arc(48, 64, 27, 24, -130, 150)]],
  [[[66, 12], ...arc(50, 66, 25, 23, -150, 215)]],
  [[[24, 14], [76, 14], [44, 88]]],
  [arc(50, 31, 20, 19, 90, 450), arc(50, 69, 24, 19, -90, 270)],
  [[...arc(50, 34, 23, 22, 20, 380), [68, 60], [60, 88]]],
];
