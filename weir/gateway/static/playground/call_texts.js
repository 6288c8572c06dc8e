/**
 * A call as curl, as Python and as a `weir` command, to be pasted. No DOM.
 *
 * Rules:
 *
 * - A shell gets every text in single quotes, in which it changes nothing.
 * - A JSON string is also a string of Python.
 * - Line breaks of a body are escaped in its JSON; those of an argument stand within its quotes.
 * - Where the page has a token, the commands read one from the file token.txt.
 *
 * Each function takes `place`, `{origin, target, usesTls, hasToken}`: the gateway's address, the
 * servers', whether these use TLS, and whether calls carry a token. Each returns
 * `{curl, python, weir}`.
 */

const TOKEN_FILE = "token.txt";
const HEREDOC_END = "END_OF_SERIES";

/** A text as one word of a POSIX shell. */
export function shellQuoted(text) {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A text as a string literal of Python, and numbers, lists and dicts as Python writes them. */
export function pythonLiteral(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${pythonLiteral(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/**
 * Classify of a picture.
 *
 * @param picture `{base64, fileName}`. Without a file's name, the bytes stand in the snippets.
 */
export function classifyPictureCall(place, name, { base64, fileName }, top) {
  const body = { pictures: [{ base64 }], top };
  const path = `/v1/models/${encodeURIComponent(name)}:classify`;
  const file = fileName || "drawing.png";
  const argument = file.startsWith("-") ? `./${file}` : file;
  const written = fileName ? "" : `printf %s ${shellQuoted(base64)} | base64 -d > ${file}\n`;
  // curl reads a quoted name of a file as it is, with ; and , in it.
  const part = `picture=@"${file.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  return {
    curl: fileName ? curl(place, path, `-F ${shellQuoted(part)} -F top=${top}`) : curlJson(place, path, body),
    python: fileName
      ? python(place, `for found in client.classify(${literals(name, [file])}, top=${top})[0]:\n    print(found.label, found.score)\n`)
      : python(place, `picture = base64.b64decode(${pythonLiteral(base64)})\nfor found in client.classify(${literals(name)}, [picture], top=${top})[0]:\n    print(found.label, found.score)\n`, ["base64"]),
    weir: written + weir(place, "classify", `${shellQuoted(argument)} --model ${shellQuoted(name)} --top ${top}`),
  };
}

/** ClassifyText of a text. */
export function classifyTextCall(place, name, text, top) {
  return {
    curl: curlJson(place, `/v1/models/${encodeURIComponent(name)}:classify-text`, { texts: [text], top }),
    python: python(place, `for found in client.classify_text(${literals(name, [text])}, top=${top})[0].classes:\n    print(found.label, found.score)\n`),
    weir: weirText(place, "classify-text", `--model ${shellQuoted(name)} --top ${top}`, text),
  };
}

/** Tag of a text. */
export function tagCall(place, name, text) {
  return {
    curl: curlJson(place, `/v1/models/${encodeURIComponent(name)}:tag`, { texts: [text] }),
    python: python(place, `for token in client.tag(${literals(name, [text])})[0]:\n    print(token.text, token.tag, token.probability)\n`),
    weir: weirText(place, "tag", `--model ${shellQuoted(name)}`, text),
  };
}

/**
 * Generate from a text.
 *
 * @param body the JSON of the request: `text`, and `beam` or `sample`, `n_best`, `attention`.
 */
export function generateCall(place, name, body) {
  const { text, beam, sample, n_best: count = 1, max_tokens: most = 0, attention } = body;
  const options = [`--model ${shellQuoted(name)}`];
  const keywords = [];
  if (beam) {
    options.push(`--beam ${beam.width}`);
    keywords.push(`search=weir.Beam(${beam.width})`);
  }
  if (sample) {
    options.push(`--sample --temperature ${sample.temperature} --seed ${sample.seed}`);
    keywords.push(`search=weir.Sample(temperature=${sample.temperature}, seed=${sample.seed})`);
  }
  if (count > 1) {
    options.push(`--n-best ${count}`);
    keywords.push(`n_best=${count}`);
  }
  if (most > 0) {
    options.push(`--max-tokens ${most}`);
    keywords.push(`max_tokens=${most}`);
  }
  if (attention) {
    options.push("--attention");
    keywords.push("attention=True");
  }
  const generate = `client.generate(${[literals(name, text), ...keywords].join(", ")})`;
  const isStreamed = !beam && count === 1;
  const lines = isStreamed
    ? `generation = ${generate}\nfor token in generation:\n    print(token.text, end="", flush=True)\n\nprint()\n`
    : `generation = ${generate}\nfor found in generation.result().hypotheses:\n    print(found.text, found.score)\n\n`;
  return {
    curl: curlJson(place, `/v1/models/${encodeURIComponent(name)}:generate`, body, "-sSN"),
    python: python(place, attention ? `${lines}print(generation.result().hypotheses[0].attention)\n` : lines),
    weir: weirText(place, "generate", options.join(" "), text),
  };
}

/**
 * Forecast of a series.
 *
 * @param columns numbers by column name.
 * @param dates texts, one a row, or null.
 */
export function forecastCall(place, name, { columns, dates, horizon }) {
  const names = Object.keys(columns);
  const header = [...(dates ? ["date"] : []), ...names];
  const rows = columns[names[0]].map((_, at) => [...(dates ? [dates[at]] : []), ...names.map((each) => columns[each][at])]);
  const csv = [header, ...rows].map((row) => row.map(csvCell).join(",")).join("\n");
  const command = weir(place, "forecast", `- --model ${shellQuoted(name)} --horizon ${horizon}`);
  return {
    curl: curlJson(place, `/v1/models/${encodeURIComponent(name)}:forecast`, { columns, horizon }),
    python: python(place, `columns = ${pythonLiteral(columns)}\nforecast = client.forecast(${literals(name)}, columns, horizon=${horizon})\nprint(forecast.values)\nprint(forecast.lower, forecast.upper)\n`),
    weir: `${command} <<'${HEREDOC_END}'\n${csv}\n${HEREDOC_END}`,
  };
}

/**
 * ModelInfer of tensors.
 *
 * @param inputs `{name, datatype, shape, values}`; `values` are nested lists of that shape.
 * @param body the JSON of the request.
 */
export function inferCall(place, name, inputs, body) {
  const arguments_ = inputs.map((each) => `-i ${shellQuoted(`${each.name}=${JSON.stringify(each.values)}`)}`);
  const arrays = inputs.map((each) => `    ${JSON.stringify(each.name)}: np.array(${pythonLiteral(each.values)}, ${NUMPY_TYPES[each.datatype] ?? "object"}),\n`);
  return {
    curl: curlJson(place, `/v2/models/${encodeURIComponent(name)}/infer`, body),
    python: python(place, `inputs = {\n${arrays.join("")}}\nfor output, values in client.infer(${literals(name)}, inputs).items():\n    print(output, values)\n`, [], ["numpy as np"]),
    weir: weir(place, "infer", `${shellQuoted(name)} ${arguments_.join(" ")}`),
  };
}

const NUMPY_TYPES = {
  BOOL: "bool",
  UINT8: "np.uint8",
  UINT16: "np.uint16",
  UINT32: "np.uint32",
  UINT64: "np.uint64",
  INT8: "np.int8",
  INT16: "np.int16",
  INT32: "np.int32",
  INT64: "np.int64",
  FP16: "np.float16",
  FP32: "np.float32",
  FP64: "np.float64",
};

function curlJson(place, path, body, flags = "-sS") {
  return curl(place, path, `-H 'Content-Type: application/json' \\\n  -d ${shellQuoted(JSON.stringify(body))}`, flags);
}

function curl(place, path, options, flags = "-sS") {
  const token = place.hasToken ? `-H "Authorization: Bearer $(cat ${TOKEN_FILE})" ` : "";
  return `curl ${flags} ${shellQuoted(place.origin + path)} \\\n  ${token}${options}`;
}

/** A script; a loop ends with an empty line, as Python's own prompt needs it. */
function python(place, lines, standard = [], others = []) {
  const targets = place.target.split(",");
  const target = pythonLiteral(targets.length > 1 ? targets : place.target);
  const imports = [...standard.map((each) => `import ${each}\n`), standard.length > 0 ? "\n" : "", ...others.map((each) => `import ${each}\n`), "import weir\n"];
  const token = place.hasToken ? `, token_file=${pythonLiteral(TOKEN_FILE)}` : "";
  const tls = place.usesTls ? ", tls=True" : "";
  return `${imports.join("")}\nclient = weir.Client(${target}${tls}${token})\n${lines}`;
}

function weir(place, verb, rest) {
  const tls = place.usesTls ? " --tls" : "";
  const token = place.hasToken ? ` --token-file ${TOKEN_FILE}` : "";
  return `weir ${verb} ${rest} --target ${shellQuoted(place.target)}${tls}${token}`;
}

/** A command of one text; - would stand for standard input, and -x for an option. */
function weirText(place, verb, options, text) {
  if (text === "-") return `echo - | ${weir(place, verb, `- ${options}`)}`;
  const command = weir(place, verb, options);
  return `${command} ${text.startsWith("-") ? "-- " : ""}${shellQuoted(text)}`;
}

function literals(...values) {
  return values.map(pythonLiteral).join(", ");
}

function csvCell(value) {
  const text = String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
