import type { Request, Response } from "./index.js";

/** A request for an absolute URL. */
export function request(
  url: string,
  options?: { headers?: Record<string, string>; method?: string; clientAddress?: string },
): Request;
/** The response of an upstream. */
export function response(status?: number, headers?: Record<string, string>): Response;
