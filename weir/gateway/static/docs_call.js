/** A call of an operation, made of what the form holds; and the same call as curl. No DOM. */

/** Whether a body of a media type is written in the form. */
export function isText(mediaType) {
  return mediaType === "application/json";
}

/** The call: `{method, path, headers, body, mediaType, hasToken}`. Fields that are empty are left out. */
export function parts({ method, path, values, mediaType, body, hasToken }) {
  const of = (place) => values.filter(({ parameter, value }) => parameter.in === place && value !== "");
  let filled = path;
  for (const { parameter, value } of of("path")) {
    // A path of several parts stays one.
    filled = filled.replace(`{${parameter.name}}`, value.split("/").map(encodeURIComponent).join("/"));
  }
  const query = of("query").map(({ parameter, value }) => `${encodeURIComponent(parameter.name)}=${encodeURIComponent(value)}`);
  const headers = of("header").map(({ parameter, value }) => [parameter.name, value]);
  const isWritten = mediaType !== undefined && isText(mediaType);
  if (isWritten) headers.push(["Content-Type", mediaType]);
  return { method, path: query.length ? `${filled}?${query.join("&")}` : filled, headers, body: isWritten ? body : undefined, mediaType, hasToken };
}

/** The call as a command of a POSIX shell. */
export function curl({ method, path, headers, body, mediaType, hasToken }, origin) {
  const words = ["curl -sS"];
  if (method !== "GET") words.push(`-X ${method}`);
  for (const [name, value] of headers) words.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (hasToken) words.push('-H "Authorization: Bearer $(cat token.txt)"');
  if (body !== undefined) words.push(`--data-binary ${quoted(body)}`);
  else if (mediaType === "multipart/form-data") words.push("-F picture=@picture.png");
  else if (mediaType !== undefined) words.push(`-H ${quoted(`Content-Type: ${mediaType}`)}`, `--data-binary @${fileOf(mediaType)}`);
  words.push(quoted(origin + path));
  return words.join(" \\\n  ");
}

function fileOf(mediaType) {
  return mediaType.startsWith("image/") ? `picture.${mediaType.slice("image/".length)}` : "request.bin";
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
