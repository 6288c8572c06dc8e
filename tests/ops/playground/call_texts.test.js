// What the calls to copy say of TLS and tokens; test_page_playground_calls.py runs them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { tagCall } from "./static/playground/call_texts.js";

const PLACE = { origin: "https://a:8000", target: "a:8001", usesTls: false, hasToken: false };

test("calls of servers with TLS use it", () => {
  const plain = tagCall(PLACE, "tagger", "a text");
  const secure = tagCall({ ...PLACE, usesTls: true }, "tagger", "a text");

  assert.match(plain.python, /weir\.Client\("a:8001"\)/);
  assert.match(secure.python, /weir\.Client\("a:8001", tls=True\)/);
  assert.doesNotMatch(plain.weir, /--tls/);
  assert.match(secure.weir, /--target a:8001 --tls /);
  assert.equal(plain.curl, secure.curl);
});
