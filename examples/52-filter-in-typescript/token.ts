// Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). The runtime of a
// component has no Web Crypto, so SHA-256 (FIPS 180-4) is here too.
import { toBytes, toText } from "witgate";

/** Why a token is not taken, as a word for the client. */
export class Refused extends Error {}

/** What a token says; anybody could have written it. */
export type Claims = Record<string, unknown>;

/** The claims of a token, once its signature has been found good. */
export function verify(token: string, key: Uint8Array): Claims {
  const parts = token.split(".");
  if (parts.length !== 3) throw new Refused("malformed-token");
  // The token does not get to choose how it is checked: there is no `none` here.
  if (asMap(parts[0]).alg !== "HS256") throw new Refused("unsupported-algorithm");
  const expected = hmac(key, toBytes(`${parts[0]}.${parts[1]}`));
  const signature = decode(parts[2]);
  // Takes the same time whatever differs.
  let difference = expected.length ^ signature.length;
  expected.forEach((byte, at) => (difference |= byte ^ (signature[at] ?? 0)));
  if (difference !== 0) throw new Refused("bad-signature");
  return asMap(parts[1]);
}

/** A token with these claims, for tests. */
export function sign(claims: Claims, key: Uint8Array): string {
  const signed = `${encode(toBytes('{"alg":"HS256"}'))}.${encode(toBytes(JSON.stringify(claims)))}`;
  return `${signed}.${encode(hmac(key, toBytes(signed)))}`;
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

function hmac(key: Uint8Array, message: Uint8Array): Uint8Array {
  const block = new Uint8Array(64);
  block.set(key.length > 64 ? sha256(key) : key);
  const inner = sha256(joined(block.map((byte) => byte ^ 0x36), message));
  return sha256(joined(block.map((byte) => byte ^ 0x5c), inner));
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

// The first 32 bits of the fractional parts of cube and square roots of the first primes.
const PRIMES = Array.from({ length: 312 }, (_, n) => n).filter((n) => {
  for (let factor = 2; factor * factor <= n; factor++) if (n % factor === 0) return false;
  return n > 1;
});
const fraction = (root: number) => ((root % 1) * 2 ** 32) | 0;
const K = PRIMES.slice(0, 64).map((prime) => fraction(Math.cbrt(prime)));
const START = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));

export function sha256(message: Uint8Array): Uint8Array {
  const padded = new Uint8Array(((message.length + 72) >> 6) << 6);
  padded.set(message);
  padded[message.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 4, message.length * 8);
  const hash = Int32Array.from(START);
  const w = new Int32Array(64);
  for (let start = 0; start < padded.length; start += 64) {
    for (let t = 0; t < 16; t++) w[t] = view.getInt32(start + 4 * t);
    for (let t = 16; t < 64; t++) {
      const [x, y] = [w[t - 15], w[t - 2]];
      const s0 = turn(x, 7) ^ turn(x, 18) ^ (x >>> 3);
      const s1 = turn(y, 17) ^ turn(y, 19) ^ (y >>> 10);
      w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let t = 0; t < 64; t++) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K[t] + w[t]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, at) => (hash[at] += value));
  }
  const digest = new Uint8Array(32);
  hash.forEach((word, at) => new DataView(digest.buffer).setInt32(4 * at, word));
  return digest;
}

const turn = (word: number, by: number) => (word >>> by) | (word << (32 - by));
