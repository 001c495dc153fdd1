// Write Witgate plugins in JavaScript: what is the same for all worlds. index.d.ts documents it.

/** Sends the request to an upstream by its name in gateway.yaml. Routers only. */
export const toUpstream = (name) => ({ kind: "upstream", name });

/** Answers with a redirect. */
export const redirect = (status, location) => ({ kind: "redirect", status, location });

/** Answers with a response of the plugin's own. */
export const respond = (status, body = "", headers = {}) => ({ kind: "respond", status, body, headers });

/** Checks a map of the configuration; an error names the key. */
export function want(value, path, keys, defaults = {}) {
  const map = value ?? {};
  if (!isMap(map)) throw new Error(`${path}: a map was expected, not ${shown(map)}`);
  for (const key of Object.keys(map)) {
    if (!Object.hasOwn(keys, key)) {
      const known = Object.keys(keys).join(", ");
      throw new Error(`${path}.${key}: unknown key, expected one of ${known}`);
    }
  }
  const found = {};
  for (const [key, kind] of Object.entries(keys)) {
    if (Object.hasOwn(map, key) && map[key] !== null) found[key] = check(map[key], `${path}.${key}`, kind);
    else if (Object.hasOwn(defaults, key)) found[key] = defaults[key];
    else throw new Error(`${path}.${key}: is missing`);
  }
  return found;
}

const KINDS = {
  text: ["a text", (value) => typeof value === "string"],
  integer: ["a whole number", (value) => Number.isInteger(value)],
  boolean: ["true or false", (value) => typeof value === "boolean"],
  texts: ["a map of texts", isMap],
};

function check(value, path, kind) {
  const [name, fits] = KINDS[kind];
  if (!fits(value)) throw new Error(`${path}: ${name} was expected, not ${shown(value)}`);
  if (kind !== "texts") return value;
  for (const [key, one] of Object.entries(value)) check(one, `${path}.${key}`, "text");
  // A Map, since an object also has what every object has: `constructor`, `toString`.
  return new Map(Object.entries(value));
}

function isMap(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value) {
  return JSON.stringify(value).slice(0, 60);
}

/** UTF-8 without TextEncoder, which the runtime need not have. */
export function toBytes(text) {
  const escaped = encodeURIComponent(text);
  const bytes = [];
  for (let at = 0; at < escaped.length; at++) {
    if (escaped[at] === "%") {
      bytes.push(parseInt(escaped.slice(at + 1, at + 3), 16));
      at += 2;
    } else {
      bytes.push(escaped.charCodeAt(at));
    }
  }
  return new Uint8Array(bytes);
}

/** Text of UTF-8; what is none becomes U+FFFD. */
export function toText(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    let code = length === 1 ? first : first & (0x7f >> length);
    let used = 1;
    while (used < length && (bytes[at + used] & 0xc0) === 0x80) code = (code << 6) | (bytes[at + used++] & 0x3f);
    const least = [0, 0, 0x80, 0x800, 0x10000][length];
    const isGood = length > 0 && used === length && code >= least && code < 0x110000 && (code & 0xfffff800) !== 0xd800;
    text += isGood ? String.fromCodePoint(code) : "\uFFFD";
    at += used;
  }
  return text;
}

/** The request in hand, over the functions of `wit/request.wit`. */
export class Request {
  #host;
  #connection;
  constructor(host, connection) {
    this.#host = host;
    this.#connection = connection;
  }
  get clientAddress() {
    return this.#connection.clientAddress();
  }
  get httpVersion() {
    return this.#connection.httpVersion();
  }
  get serverName() {
    return this.#connection.tlsServerName() ?? undefined;
  }
  get id() {
    return this.#host.id();
  }
  get scheme() {
    return this.#host.scheme();
  }
  get method() {
    return this.#host.method();
  }
  set method(method) {
    this.#host.setMethod(method);
  }
  get authority() {
    return this.#host.authority();
  }
  set authority(authority) {
    this.#host.setAuthority(authority);
  }
  get hostname() {
    return this.#host.authority().replace(/:\d*$/, "");
  }
  get path() {
    return this.#host.path();
  }
  set path(path) {
    this.#host.setPath(path);
  }
  get query() {
    return this.#host.query() ?? undefined;
  }
  set query(query) {
    this.#host.setQuery(query);
  }
  get headers() {
    return new Headers(this.#host);
  }
}

/** The response in hand, over the functions of `wit/response.wit`. */
export class Response {
  #host;
  constructor(host) {
    this.#host = host;
  }
  get status() {
    return this.#host.status();
  }
  set status(status) {
    this.#host.setStatus(status);
  }
  get source() {
    return this.#host.source();
  }
  get headers() {
    return new Headers(this.#host);
  }
}

/** Fields of a head; names in any case. */
class Headers {
  #host;
  constructor(host) {
    this.#host = host;
  }
  get(name) {
    return this.#host.header(name) ?? undefined;
  }
  getAll(name) {
    return this.#host.headerValues(name);
  }
  names() {
    return this.#host.headerNames();
  }
  set(name, value) {
    this.#host.setHeader(name, value);
  }
  append(name, value) {
    this.#host.appendHeader(name, value);
  }
  delete(name) {
    this.#host.removeHeader(name);
  }
}

// What every world imports; outside of a component, a console and a map.
const kept = new Map();
let gateway = {
  write: (level, message) => console.error(`${level}: ${message}`),
  get: (key) => kept.get(key),
  set: (key, value) => void kept.set(key, value),
  remove: (key) => void kept.delete(key),
  increment(key, by) {
    const next = Number(toText(kept.get(key) ?? toBytes("0"))) + by;
    kept.set(key, toBytes(String(next)));
    return next;
  },
};

const absent = () => {
  throw new Error("there is no gateway: a test calls `connectCrypto` of witgate/testing.js first");
};
let keyed = { hmac: absent, verifyHmac: absent, verifySignature: absent };

/** For the modules of the worlds. */
export function connectHost(log, state) {
  const { get, set, remove, increment } = state;
  gateway = { write: log.write, get, set, remove, increment };
}

/** For the modules of the worlds, and for tests. */
export function connectKeys({ hmac, verifyHmac, verifySignature }) {
  keyed = { hmac, verifyHmac, verifySignature };
}

/** Writes a line to the gateway's log. */
export const log = (level, message) => gateway.write(level, message);

/** What the gateway throws has the code of the contract. */
function told(call) {
  try {
    return call();
  } catch (error) {
    throw new Error(String(error?.payload ?? error?.message ?? error));
  }
}

/** The plugin's key-value store. */
export const state = {
  get: (key) => gateway.get(key) ?? undefined,
  getText(key) {
    const value = state.get(key);
    return value === undefined ? undefined : toText(value);
  },
  set(key, value, seconds) {
    told(() => gateway.set(key, typeof value === "string" ? toBytes(value) : value, seconds ?? null));
  },
  remove: (key) => gateway.remove(key),
  // 64 bits, which componentize-qjs takes as a number.
  increment: (key, by = 1, seconds) => Number(told(() => gateway.increment(key, by, seconds ?? null))),
};

/** Keyed checks that the gateway makes. */
export const crypto = {
  hmac: (algorithm, secret, data) => told(() => keyed.hmac(algorithm, secret, data)),
  verifyHmac: (algorithm, secret, data, code) => told(() => keyed.verifyHmac(algorithm, secret, data, code)),
  verifySignature: (algorithm, publicKey, data, signature) =>
    told(() => keyed.verifySignature(algorithm, publicKey, data, signature)),
};

let streams;

/** For the module of bodies, and for tests. */
export function connectBodies(host) {
  streams = host;
}

/** What a plugin keeps for each body under way. */
export const bodies = {
  all: new Map(),
  ask(how, handler) {
    if (!streams) throw new Error("plugin.yaml asks for no bodies: grants: {response: {body: transform}}");
    const number = told(() => streams[how]());
    // 64 bits, which are a number or a BigInt.
    bodies.all.set(String(number), { handler, changes: how === "transform" });
  },
  give(changes, given, chunk) {
    if (!changes || given === undefined || given === null) return;
    if (given === chunk) return streams.pass();
    if (Array.isArray(given)) return given.forEach((one) => bodies.give(changes, one, chunk));
    streams.write(typeof given === "string" ? toBytes(given) : given);
  },
  chunk(number, chunk) {
    const { handler, changes } = bodies.all.get(String(number));
    bodies.give(changes, handler.chunk(chunk), chunk);
  },
  finish(number) {
    const { handler, changes } = bodies.all.get(String(number));
    bodies.all.delete(String(number));
    bodies.give(changes, handler.finish?.());
  },
  abandon(number) {
    const body = bodies.all.get(String(number));
    bodies.all.delete(String(number));
    body?.handler.abandon?.();
  },
};

/** Changes the body of the message in hand as it passes. */
export const transformBody = (handler) => bodies.ask("transform", handler);

/** Looks at the body of the message in hand as it passes. */
export const observeBody = (handler) => bodies.ask("observe", handler);

/** Asks the upstream for a response that can be transformed. */
export function expectResponse() {
  if (!streams) throw new Error("plugin.yaml asks for no bodies: grants: {response: {body: transform}}");
  told(() => streams.expectResponse());
}
