/** What becomes of a request. A hook that returns nothing lets it go on. */
export type Decision = { readonly kind: "upstream" | "redirect" | "respond" } | undefined | void;

/** Sends the request to an upstream by its name in gateway.yaml. Routers only. */
export function toUpstream(name: string): Decision;
/** Answers with a redirect: 301, 302, 303, 307 or 308. */
export function redirect(status: number, location: string): Decision;
/** Answers with a response of the plugin's own. */
export function respond(
  status: number,
  body?: string | Uint8Array,
  headers?: Record<string, string>,
): Decision;

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

/** What the module `plugin` of a router exports as `default`: makes it from `config:`. */
export type RouterPlugin = (config: unknown) => { route(request: Request): Decision };

/** What the module `plugin` of a filter exports as `default`. A hook that is absent costs nothing. */
export type FilterPlugin = (config: unknown) => {
  onRequest?(request: Request): Decision;
  /** The largest prefix of the body to be called with, in bytes. */
  bodyBytes?: number;
  onRequestBody?(request: Request, prefix: Uint8Array, isComplete: boolean): Decision;
  onResponse?(request: Request, response: Response): void;
};
