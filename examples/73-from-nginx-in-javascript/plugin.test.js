import assert from "node:assert/strict";
import test from "node:test";
import { request } from "witgate/testing.js";
import keyLimit from "./plugin.js";

const filter = keyLimit({ "per-minute": 2 });
const ask = (headers) => filter.onRequest(request("https://example.com/", { headers }))?.status;

test("each key gets through so many times", () => {
  assert.deepEqual(["a", "a", "a", "b"].map((key) => ask({ "x-api-key": key })), [undefined, undefined, 429, undefined]);
  assert.equal(ask({}), 401);
});
