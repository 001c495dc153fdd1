// What a DNS-01 solver needs beside its own functions. dns.d.ts documents it.
import { toBytes, toText } from "./index.js";

/** Why a call did not succeed. */
export class Failure extends Error {
  constructor(code, message, retryAfter) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }

  static zoneNotFound(candidates) {
    const names = candidates.join(", ");
    return new Failure("zone-not-found", `the account has no zone for any of: ${names}`);
  }

  static fromAnswer(answer, message) {
    const fallback = answer.status >= 400 && answer.status < 500 ? "invalid" : "unavailable";
    const code = CODES[answer.status] ?? fallback;
    const wait = answer.header("retry-after") ?? "";
    const isWorth = (code === "rate-limited" || code === "unavailable") && /^\d{1,9}$/.test(wait);
    return new Failure(code, message, isWorth ? Number(wait) : undefined);
  }
}

const CODES = {
  401: "auth",
  402: "account-not-entitled",
  403: "forbidden",
  404: "zone-not-found",
  408: "unavailable",
  409: "conflict",
  412: "conflict",
  425: "unavailable",
  429: "rate-limited",
};

/** An answer; a status of 4xx or 5xx is one too. */
export class Answer {
  constructor(status, headers, body) {
    this.status = status;
    this.headers = headers;
    this.body = body;
  }
  get isSuccess() {
    return this.status >= 200 && this.status < 300;
  }
  header(name) {
    return this.headers.find(([key]) => key === name)?.[1];
  }
  get text() {
    return toText(this.body);
  }
  json() {
    try {
      return JSON.parse(this.text);
    } catch (error) {
      const words = `the answer (status ${this.status}) is no JSON: ${error.message}`;
      throw new Failure("unavailable", words);
    }
  }
}

let transport = () => {
  throw new Failure("unavailable", "there is no gateway: a test calls `connect` first");
};

/** Puts something in the place of the gateway: (method, url, headers, body) => answer. */
export function connect(send) {
  transport = send;
}

/** Sends a request through the gateway, within `grants`. */
export function send(method, url, { json, headers = {}, bearer } = {}) {
  const fields = { ...headers };
  if (json !== undefined) fields["content-type"] = "application/json";
  if (bearer !== undefined) fields.authorization = `Bearer ${secret(bearer)}`;
  const body = json === undefined ? new Uint8Array() : toBytes(JSON.stringify(json));
  const { status, headers: got, body: bytes } = transport(method, url, Object.entries(fields), body);
  return new Answer(status, got, bytes);
}

/** The placeholder of a secret, for a header value, the query or the body. */
export const secret = (name) => `{{secret:${name}}}`;

/** Percent-encodes text for one segment of a path or one part of a query. */
export const escape = (text) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
