import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import test from "node:test";
import type { Decision, Request } from "witgate";
import { connectCrypto, request, response } from "witgate/testing.js";
import jwtFilter from "./plugin.js";
import { sign } from "./token.js";

connectCrypto({
  hmac(algorithm, secret, data) {
    if (secret !== "key") throw new Error("unknown-secret");
    return createHmac(algorithm, "a key of thirty-two bytes or more").update(data).digest();
  },
});
const filter = jwtFilter({ issuer: "login" });

function ask(claims: Record<string, unknown>): [Request, Decision] {
  const headers = { "x-user": "forged", authorization: `Bearer ${sign(claims)}` };
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

test("a key that is missing is a load error", () => {
  connectCrypto({
    hmac() {
      throw new Error("unknown-secret");
    },
  });
  assert.throws(() => jwtFilter({}), /^Error: secrets\.key: unknown-secret/);
});
