// Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). The gateway checks
// them: the key is a secret that stays there.
import { crypto, toBytes, toText } from "witgate";

/** The name of the secret that tokens are signed with. */
const KEY = "key";

/** Why a token is not taken, as a word for the client. */
export class Refused extends Error {}

/** What a token says; anybody could have written it. */
export type Claims = Record<string, unknown>;

/** Sees that there is a key: better at the start than at the first request. */
export function checkKey(): void {
  try {
    crypto.hmac("sha256", KEY, new Uint8Array());
  } catch (error) {
    throw new Error(`secrets.key: ${error instanceof Error ? error.message : error}`);
  }
}

/** The claims of a token, once its signature has been found good. */
export function verify(token: string): Claims {
  const parts = token.split(".");
  if (parts.length !== 3) throw new Refused("malformed-token");
  // The token does not get to choose how it is checked: there is no `none` here.
  if (asMap(parts[0]).alg !== "HS256") throw new Refused("unsupported-algorithm");
  if (!crypto.verifyHmac("sha256", KEY, toBytes(`${parts[0]}.${parts[1]}`), decode(parts[2]))) throw new Refused("bad-signature");
  return asMap(parts[1]);
}

/** A token with these claims, for tests. */
export function sign(claims: Claims): string {
  const signed = `${encode(toBytes('{"alg":"HS256"}'))}.${encode(toBytes(JSON.stringify(claims)))}`;
  return `${signed}.${encode(crypto.hmac("sha256", KEY, toBytes(signed)))}`;
}

function asMap(part: string): Claims {
  let value: unknown;
  try {
    value = JSON.parse(toText(decode(part)));
  } catch {
    throw new Refused("malformed-token");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Refused("malformed-token");
  return value as Claims;
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** Base64url without padding (RFC 7515, appendix C). */
function decode(text: string): Uint8Array {
  const bytes: number[] = [];
  let bits = 0;
  let count = 0;
  for (const letter of text) {
    const value = ALPHABET.indexOf(letter);
    if (value < 0) throw new Refused("malformed-token");
    bits = ((bits << 6) | value) & 0xffff;
    count += 6;
    if (count >= 8) bytes.push((bits >> (count -= 8)) & 0xff);
  }
  if (text.length % 4 === 1) throw new Refused("malformed-token");
  return new Uint8Array(bytes);
}

function encode(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 3) {
    const three = (bytes[at] << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    for (let sextet = 0; sextet < Math.min(4, bytes.length - at + 1); sextet++) {
      text += ALPHABET[(three >> (18 - 6 * sextet)) & 63];
    }
  }
  return text;
}
