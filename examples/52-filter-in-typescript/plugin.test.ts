import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { toBytes } from "witgate";
import type { Decision, Request } from "witgate";
import { request, response } from "witgate/testing.js";
import jwtFilter from "./plugin.js";
import { sha256, sign } from "./token.js";

const KEY = "a key of thirty-two bytes or more";
const filter = jwtFilter({ key: KEY, issuer: "login" });

function ask(claims: Record<string, unknown>): [Request, Decision] {
  const headers = { "x-user": "forged", authorization: `Bearer ${sign(claims, toBytes(KEY))}` };
  const asked = request("https://example.com/", { headers });
  return [asked, filter.onRequest?.(asked)];
}

function reason(decision: Decision): [number, string] {
  assert.ok(decision?.kind === "respond" && typeof decision.body === "string");
  return [decision.status, JSON.parse(decision.body).error];
}

test("a good token tells the application who it is", () => {
  const [asked, decision] = ask({ sub: "ann", iss: "login" });
  assert.equal(decision, undefined);
  assert.equal(asked.headers.get("x-user"), "ann");
  assert.equal(asked.headers.get("authorization"), undefined);
});

test("bad tokens are refused with the reason", () => {
  assert.deepEqual(reason(ask({ sub: "ann", iss: "login", exp: 1 })[1]), [401, "expired"]);
  assert.deepEqual(reason(ask({ sub: "ann", iss: "elsewhere" })[1]), [401, "wrong-issuer"]);
  const decision = filter.onRequest?.(request("https://example.com/"));
  assert.deepEqual(reason(decision), [401, "missing-token"]);
});

test("caches are told", () => {
  const answer = response(200);
  filter.onResponse?.(request("https://example.com/"), answer);
  assert.equal(answer.headers.get("vary"), "authorization");
});

test("SHA-256 is that of everybody else", () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 1000]) {
    const message = new Uint8Array(length).map((_, at) => at * 7);
    const expected = createHash("sha256").update(message).digest("hex");
    assert.equal(Buffer.from(sha256(message)).toString("hex"), expected, `${length} bytes`);
  }
});

test("a short key is a load error", () => {
  assert.throws(() => jwtFilter({ key: "short" }), /^Error: config\.key: /);
});
