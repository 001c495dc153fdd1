/** A request goes to an upstream. */
export interface ToUpstream {
  readonly kind: "upstream";
  readonly name: string;
}
/** A request is answered with a redirect. */
export interface Redirect {
  readonly kind: "redirect";
  readonly status: number;
  readonly location: string;
}
/** A request is answered with a response of the plugin's own. */
export interface Respond {
  readonly kind: "respond";
  readonly status: number;
  readonly body: string | Uint8Array;
  readonly headers: Record<string, string>;
}

/** What becomes of a request. A hook that returns nothing lets it go on. */
export type Decision = ToUpstream | Redirect | Respond | undefined | void;

/** Sends the request to an upstream by its name in gateway.yaml. Routers only. */
export function toUpstream(name: string): ToUpstream;
/** Answers with a redirect: 301, 302, 303, 307 or 308. */
export function redirect(status: number, location: string): Redirect;
/** Answers with a response of the plugin's own. */
export function respond(
  status: number,
  body?: string | Uint8Array,
  headers?: Record<string, string>,
): Respond;

/** What a key of the configuration is; `texts` is a map of texts and becomes a Map. */
export type Kind = "text" | "integer" | "boolean" | "texts";
type Of<K> = K extends "text" ? string : K extends "integer" ? number : K extends "boolean" ? boolean
  : Map<string, string>;

/**
 * Checks a map of the configuration: every key of `keys` with its kind, none else. Keys in `defaults`
 * may be left out. Throws an error that names the key, for the operator.
 */
export function want<T extends Record<string, Kind>, D extends Record<string, unknown> = {}>(
  value: unknown,
  path: string,
  keys: T,
  defaults?: D,
): { [K in keyof T]: Of<T[K]> | (K extends keyof D ? D[K] : never) };

/** Writes a line to the gateway's log. */
export function log(level: "error" | "warn" | "info" | "debug" | "trace", message: string): void;

/**
 * The small key-value store that the gateway keeps for the plugin, shared by all its instances. Keys live
 * for `seconds` when that is given. Throws errors whose message is a code: `key-too-long`,
 * `value-too-long`, `quota`, `not-a-counter`.
 */
export const state: {
  get(key: string): Uint8Array | undefined;
  getText(key: string): string | undefined;
  set(key: string, value: string | Uint8Array, seconds?: number): void;
  remove(key: string): void;
  /** Adds to a counter and returns its new value. `seconds` is the life of a new counter. */
  increment(key: string, by?: number, seconds?: number): number;
};

/**
 * Keyed checks that the gateway makes, so that no key enters the plugin. `secret` is the name of one in the
 * plugin's stanza, which needs `grants: {hmac: [NAME]}`. Throws errors whose message is a code:
 * `unknown-algorithm`, `unknown-secret`, `denied`, `bad-key`.
 */
export const crypto: {
  /** The HMAC of `data`. */
  hmac(algorithm: "sha256" | "sha384" | "sha512", secret: string, data: Uint8Array): Uint8Array;
  /** Whether `code` is that HMAC, compared in constant time. */
  verifyHmac(
    algorithm: "sha256" | "sha384" | "sha512",
    secret: string,
    data: Uint8Array,
    code: Uint8Array,
  ): boolean;
  /**
   * Whether `signature` is one of `data`. `algorithm` is a name of JSON Web Algorithms, such as `RS256`;
   * `wit/crypto.wit` has the form of each key.
   */
  verifySignature(
    algorithm: string,
    publicKey: Uint8Array,
    data: Uint8Array,
    signature: Uint8Array,
  ): boolean;
};

/** UTF-8. */
export function toBytes(text: string): Uint8Array;
/** Text of UTF-8; what is none becomes U+FFFD. */
export function toText(bytes: Uint8Array): string;

/** Fields of a head; names in any case. */
export interface Headers {
  /** The first value; undefined when the field is absent. */
  get(name: string): string | undefined;
  getAll(name: string): string[];
  names(): string[];
  set(name: string, value: string): void;
  append(name: string, value: string): void;
  delete(name: string): void;
}

/** The request in hand; valid inside a hook. */
export class Request {
  /** The id of this exchange, as in the access log. */
  readonly id: string;
  /** `https` or `http`. */
  readonly scheme: string;
  /** The client's IP address. */
  readonly clientAddress: string;
  /** Such as `HTTP/2`. */
  readonly httpVersion: string;
  /** The name in the client's ClientHello. */
  readonly serverName: string | undefined;
  method: string;
  /** Host in lower case, and the port when the client sent one. */
  authority: string;
  /** The host without a port. */
  readonly hostname: string;
  /** Percent-encoded, without the query. */
  path: string;
  /** Without its `?`. */
  query: string | undefined;
  readonly headers: Headers;
}

/** The response in hand; valid inside `onResponse`. */
export class Response {
  status: number;
  /** `upstream`, `plugin` or `gateway`. */
  readonly source: string;
  readonly headers: Headers;
}

/** A router. */
export interface Router {
  route(request: Request): Decision;
}

/** What the module `plugin` of a router exports as `default`: makes it from `config:`. */
export type RouterPlugin = (config: unknown) => Router;

/** A filter. A hook that is absent costs nothing. */
export interface Filter {
  onRequest?(request: Request): Decision;
  /** The largest prefix of the body to be called with, in bytes. */
  bodyBytes?: number;
  onRequestBody?(request: Request, prefix: Uint8Array, isComplete: boolean): Decision;
  onResponse?(request: Request, response: Response): void;
}

/** What the module `plugin` of a filter exports as `default`: makes it from `config:`. */
export type FilterPlugin = (config: unknown) => Filter;

/** What goes on in place of a chunk: nothing, the chunk itself (which is not copied), bytes, text, or some of each. */
export type Given = Uint8Array | string | undefined | void | Array<Uint8Array | string>;

/** What a filter does with one body. Its own variables keep what belongs to that body. */
export interface BodyHandler {
  /** The next piece, at most 64 KiB. Returns what goes on in its place; not looked at by `observeBody`. */
  chunk(chunk: Uint8Array): Given;
  /** The end of the body. Returns what goes on before it. */
  finish?(): Given;
  /** The body will not come to its end. */
  abandon?(): void;
}

/**
 * Inside `onRequest` and `onResponse`: changes the body of that message as it passes. plugin.yaml asks
 * for it by `grants: {response: {body: transform}}` or `request`. Throws an error whose message is a code when
 * the body goes by unseen: `denied`, `no-body`, `encoded`, `partial`, `again`.
 */
export function transformBody(handler: BodyHandler): void;
/** As `transformBody`, to look at the body and leave it as it is. */
export function observeBody(handler: BodyHandler): void;
/** Inside `onRequest`: asks the upstream for a response that can be transformed, whole and without a content coding. */
export function expectResponse(): void;
