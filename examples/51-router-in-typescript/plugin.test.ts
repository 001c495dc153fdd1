import assert from "node:assert/strict";
import test from "node:test";
import { redirect, toUpstream } from "witgate";
import { request } from "witgate/testing.js";
import tenantRouter from "./plugin.js";

const CONFIG = { domain: "example.com", tenants: { blue: "web-1" }, moved: { azure: "blue" } };
const router = tenantRouter(CONFIG);

test("a tenant goes to its upstream", () => {
  const asked = request("https://blue.example.com/", { headers: { "x-tenant": "forged" } });
  assert.deepEqual(router.route(asked), toUpstream("web-1"));
  assert.equal(asked.headers.get("x-tenant"), "blue");
});

test("a moved tenant is redirected with port and query", () => {
  const decision = router.route(request("https://azure.example.com:8443/a?b=c"));
  assert.deepEqual(decision, redirect(308, "https://blue.example.com:8443/a?b=c"));
});

test("an unknown tenant gets 404, other hosts go on", () => {
  const decision = router.route(request("https://x.example.com/"));
  assert.ok(decision?.kind === "respond" && decision.status === 404);
  assert.equal(router.route(request("https://example.com/")), undefined);
});

test("a mistake names its key", () => {
  const config = { ...CONFIG, moved: { c: "d" } };
  assert.throws(() => tenantRouter(config), /^Error: config\.moved\.c: `d`/);
});
