/** Tensors of the Open Inference Protocol as JSON: a first request, and nested values. No DOM. */

/** A request of more values than this is not written out: the field would be too slow to edit. */
const MOST_VALUES = 50_000;

/**
 * A request of the right shapes: one row, axes of any size are 1 long, and every value is the least
 * that is allowed.
 *
 * @param inputs `{name, datatype, shape}` of the model's metadata; -1 is an axis of any size.
 * @param contract null for a model without one.
 */
export function firstRequest(inputs, contract) {
  const axes = Object.values(contract?.padded_axes ?? {});
  const ones = new Set(axes.flatMap((axis) => [axis.lengths, axis.mask]));
  return {
    inputs: inputs.map(({ name, datatype, shape }) => {
      const sizes = shape.map((size) => (Number(size) < 0 ? 1 : Number(size)));
      const count = sizes.reduce((product, size) => product * size, 1);
      const value = ones.has(name) ? 1 : (contract?.value_ranges?.[name]?.minimum ?? 0);
      return { name, datatype, shape: sizes, data: count > MOST_VALUES ? [] : Array(count).fill(firstValue(datatype, value)) };
    }),
  };
}

/** The request as text: a line for each field of a tensor, and its data on one line. */
export function requestText({ inputs }) {
  const tensors = inputs.map(({ name, datatype, shape, data }) =>
    [
      "    {",
      `      "name": ${JSON.stringify(name)},`,
      `      "datatype": ${JSON.stringify(datatype)},`,
      `      "shape": ${spaced(shape)},`,
      `      "data": ${spaced(data)}`,
      "    }",
    ].join("\n"),
  );
  return `{\n  "inputs": [\n${tensors.join(",\n")}\n  ]\n}`;
}

/** Flat or nested values as nested lists of a shape; null if their number is another. */
export function nested(data, shape) {
  const flat = [data].flat(Infinity);
  if (shape.reduce((product, size) => product * size, 1) !== flat.length) return null;
  if (shape.length === 0) return flat[0];
  return shape.slice(1).reduceRight((rows, size) => chunks(rows, size), flat);
}

/** Values as text with line breaks between rows, cut after `most` characters. */
export function valuesText(data, shape, most = 4000) {
  const text = rowsText(nested(data, shape) ?? data, "");
  return text.length > most ? `${text.slice(0, most)} …` : text;
}

function rowsText(values, indent) {
  if (!Array.isArray(values)) return JSON.stringify(values);
  if (!values.some(Array.isArray)) return `[${values.map((each) => JSON.stringify(each)).join(", ")}]`;
  return `[${values.map((each) => rowsText(each, `${indent} `)).join(`,\n${indent} `)}]`;
}

function chunks(values, size) {
  if (size === 0) return [];
  return Array.from({ length: values.length / size }, (_, at) => values.slice(at * size, (at + 1) * size));
}

function firstValue(datatype, value) {
  if (datatype === "BYTES") return "";
  return datatype === "BOOL" ? false : value;
}

function spaced(values) {
  return `[${values.map((each) => JSON.stringify(each)).join(", ")}]`;
}
