import type { Request, Response } from "./index.js";

/** A request for an absolute URL. */
export function request(
  url: string,
  options?: { headers?: Record<string, string>; method?: string; clientAddress?: string },
): Request;
/** The response of an upstream. */
export function response(status?: number, headers?: Record<string, string>): Response;
/** Stands in for `crypto` of "witgate"; what is not given throws when it is called. */
export function connectCrypto(gateway: {
  hmac?(algorithm: string, secret: string, data: Uint8Array): Uint8Array;
  verifySignature?(
    algorithm: string,
    publicKey: Uint8Array,
    data: Uint8Array,
    signature: Uint8Array,
  ): boolean;
}): void;

/**
 * Runs `hook`, which asks for a body, and shows what it asked for these chunks. Returns what goes on;
 * undefined when it did not ask. With `refusal` it hears that code instead.
 */
export function body(hook: () => void, chunks: Uint8Array[], options?: { refusal?: string }): Uint8Array | undefined;
