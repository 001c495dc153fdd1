import assert from "node:assert/strict";
import test from "node:test";
import { toBytes, toText } from "witgate";
import { connect } from "witgate/dns.js";
import exampleDns from "./plugin.js";

const solver = exampleDns({ api: "https://api.example/v1/" });
const ZONE = { name: "example.com", handle: "z1" };
const answer = (status: number, json?: unknown) => ({
  status,
  headers: [] as [string, string][],
  body: json === undefined ? new Uint8Array() : toBytes(JSON.stringify(json)),
});

test("records are added and exactly those removed", () => {
  connect((method, _url, headers, body) => {
    assert.equal(Object.fromEntries(headers).authorization, "Bearer {{secret:token}}");
    if (method === "DELETE") return answer(204);
    return answer(201, { id: `r-${JSON.parse(toText(body)).content}` });
  });
  const handle = solver.present(ZONE, "n", ["one", "two"], 60);
  assert.equal(handle, "r-one r-two");
  solver.cleanup(ZONE, "n", ["one", "two"], handle);
});

test("without a handle only our values are removed", () => {
  const removed: (string | undefined)[] = [];
  connect((method, url) => {
    if (method === "DELETE") {
      removed.push(url.split("/").at(-1));
      return answer(204);
    }
    const records = [{ id: "a", content: "one" }, { id: "b", content: "somebody else's" }];
    return answer(200, { records });
  });
  solver.cleanup(ZONE, "n", ["one", "two"], "");
  assert.deepEqual(removed, ["a"]);
});

test("the provider speaks for itself", () => {
  connect(() => answer(403, { error: "this token is read-only" }));
  const expected = { code: "forbidden", message: "this token is read-only" };
  assert.throws(() => solver.present(ZONE, "n", ["one"], 60), expected);
});
