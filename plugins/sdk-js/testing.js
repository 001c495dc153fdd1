// A double of the gateway for a plugin's own tests, under `node --test`.
import { Request, Response, bodies, connectBodies, connectKeys } from "./index.js";

class Fields {
  constructor(headers) {
    this.all = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  }
  header(name) {
    return this.headerValues(name)[0] ?? null;
  }
  headerValues(name) {
    return this.all.filter(([key]) => key === name.toLowerCase()).map(([, value]) => value);
  }
  headerNames() {
    return [...new Set(this.all.map(([name]) => name))];
  }
  setHeader(name, value) {
    if (/[\0-\x08\x0a-\x1f\x7f]/.test(value)) throw new Error(`the gateway traps here: ${name}`);
    this.removeHeader(name);
    this.appendHeader(name, value);
  }
  appendHeader(name, value) {
    this.all.push([name.toLowerCase(), value]);
  }
  removeHeader(name) {
    this.all = this.all.filter(([key]) => key !== name.toLowerCase());
  }
}

/** A request for an absolute URL. */
export function request(url, { headers = {}, method = "GET", clientAddress = "192.0.2.1" } = {}) {
  const { protocol, host, pathname, search } = new URL(url);
  const now = { method, authority: host, path: pathname, query: search ? search.slice(1) : null };
  const fields = new Fields(headers);
  return new Request(
    Object.assign(fields, {
      id: () => "test",
      scheme: () => protocol.slice(0, -1),
      method: () => now.method,
      setMethod: (value) => (now.method = value),
      authority: () => now.authority,
      setAuthority: (value) => (now.authority = value),
      path: () => now.path,
      setPath: (value) => (now.path = value),
      query: () => now.query,
      setQuery: (value) => (now.query = value ?? null),
    }),
    { clientAddress: () => clientAddress, httpVersion: () => "HTTP/2", tlsServerName: () => host },
  );
}

/** The response of an upstream. */
export function response(status = 200, headers = {}) {
  let now = status;
  const fields = new Fields(headers);
  const set = (value) => (now = value);
  return new Response(Object.assign(fields, { status: () => now, setStatus: set, source: () => "upstream" }));
}

/** Stands in for `crypto`: what is not given throws. */
export function connectCrypto({ hmac, verifySignature }) {
  const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
  const verifyHmac = (algorithm, secret, data, code) => same(hmac(algorithm, secret, data), code);
  connectKeys({ hmac, verifyHmac, verifySignature });
}

/**
 * Runs `hook`, which asks for a body, and shows what it asked for these chunks. Returns what goes on as
 * one Uint8Array; undefined when it did not ask. With `refusal` it hears that code instead.
 */
export function body(hook, chunks, { refusal } = {}) {
  let given = [];
  let chunk;
  let mode;
  const ask = (how) => () => {
    if (refusal) throw new Error(refusal);
    mode = how;
    return 1;
  };
  connectBodies({
    transform: ask("transform"),
    observe: ask("observe"),
    expectResponse() {},
    write: (bytes) => given.push(...bytes),
    pass: () => given.push(...chunk),
  });
  hook();
  if (!mode) return undefined;
  for (chunk of chunks) {
    bodies.chunk(1, chunk);
    if (mode === "observe") given.push(...chunk);
  }
  bodies.finish(1);
  return new Uint8Array(given);
}
