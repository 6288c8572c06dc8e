import assert from "node:assert/strict";
import { test } from "node:test";

import { firstRequest, nested, requestText, valuesText } from "./static/playground/tensor_data.js";

test("a first request has the shapes and the least values", () => {
  const contract = {
    padded_axes: { time: { lengths: "lengths", mask: null } },
    value_ranges: { tokens: { minimum: 4, maximum: 9 } },
  };
  const inputs = [
    { name: "tokens", datatype: "INT64", shape: [-1, -1] },
    { name: "lengths", datatype: "INT64", shape: ["-1"] },
    { name: "text", datatype: "BYTES", shape: [-1, 2] },
    { name: "flag", datatype: "BOOL", shape: [1] },
  ];

  assert.deepEqual(firstRequest(inputs, contract), {
    inputs: [
      { name: "tokens", datatype: "INT64", shape: [1, 1], data: [4] },
      { name: "lengths", datatype: "INT64", shape: [1], data: [1] },
      { name: "text", datatype: "BYTES", shape: [1, 2], data: ["", ""] },
      { name: "flag", datatype: "BOOL", shape: [1], data: [false] },
    ],
  });
});

test("a huge request is left to the reader", () => {
  const [input] = firstRequest([{ name: "x", datatype: "FP32", shape: [-1, 3, 1000, 1000] }], null).inputs;

  assert.deepEqual([input.shape, input.data], [[1, 3, 1000, 1000], []]);
});

test("the text of a request is its JSON", () => {
  const request = firstRequest([{ name: 'a"b', datatype: "FP32", shape: [2, 2] }], null);

  assert.deepEqual(JSON.parse(requestText(request)), request);
});

test("values are nested by their shape", () => {
  assert.deepEqual(nested([1, 2, 3, 4, 5, 6], [1, 2, 3]), [[[1, 2, 3], [4, 5, 6]]]);
  assert.deepEqual(nested([[1, 2], [3, 4]], [4]), [1, 2, 3, 4]);
  assert.equal(nested([7], []), 7);
  assert.deepEqual(nested([], [0, 3]), []);
  assert.equal(nested([1, 2, 3], [2, 2]), null);
});

test("values are shown with a row a line, and cut", () => {
  assert.equal(valuesText([1, 2, 3, 4], [2, 2]), "[[1, 2],\n [3, 4]]");
  assert.equal(valuesText(Array(9999).fill(1), [9999], 9), "[1, 1, 1, …");
});
