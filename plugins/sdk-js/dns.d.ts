/** Why a call did not succeed: a code of `wit/dns-solver.wit`, and words for the operator. */
export class Failure extends Error {
  constructor(code: string, message: string, retryAfter?: number);
  readonly code: string;
  readonly retryAfter: number | undefined;
  static zoneNotFound(candidates: string[]): Failure;
  /** The failure that an answer's status stands for; `message`: the provider's own words. */
  static fromAnswer(answer: Answer, message: string): Failure;
}

/** An answer; a status of 4xx or 5xx is one too. */
export class Answer {
  constructor(status: number, headers: [string, string][], body: Uint8Array);
  readonly status: number;
  readonly headers: [string, string][];
  readonly body: Uint8Array;
  readonly isSuccess: boolean;
  /** The body as text. */
  readonly text: string;
  /** The first value of a field; names are in lower case. */
  header(name: string): string | undefined;
  /** The body as JSON; throws a `Failure` when it is none. */
  json(): any;
}

/** A zone at the provider: its name, one of the candidates, and the provider's id of it. */
export interface Zone {
  name: string;
  handle: string;
}

/** A DNS-01 solver. Every call may come again. */
export interface Solver {
  /** Facts about the provider, such as `{"ttl-min": 60}`. */
  traits?(): Record<string, string | number>;
  findZone(candidates: string[]): Zone;
  present(zone: Zone, name: string, values: string[], ttl: number): string;
  /** Seconds after which to ask again, or nothing when it is live. */
  poll?(zone: Zone, handle: string): number | undefined;
  cleanup(zone: Zone, name: string, values: string[], handle: string): void;
}

/** What the module `plugin` of a solver exports as `default`: makes it from `config:`. */
export type SolverPlugin = (config: unknown) => Solver;

/**
 * Sends a request through the gateway, within `grants`. `bearer` is the NAME of a secret: its value
 * never enters the plugin.
 */
export function send(
  method: string,
  url: string,
  options?: { json?: unknown; headers?: Record<string, string>; bearer?: string },
): Answer;

/** Puts something in the place of the gateway, for tests. */
export function connect(
  send: (
    method: string,
    url: string,
    headers: [string, string][],
    body: Uint8Array,
  ) => { status: number; headers: [string, string][]; body: Uint8Array },
): void;

/** The placeholder of a secret, for a header value, the query or the body. */
export function secret(name: string): string;
/** Percent-encodes text for one segment of a path or one part of a query. */
export function escape(text: string): string;
