// A filter: lets requests through that carry a JWT signed with HMAC-SHA256 (RFC 7519, `HS256` of
// RFC 7518), and hands its claims to the application as fields. The application need not know about
// tokens, and cannot be told lies by clients.
import { respond, want } from "witgate";
import { Refused, checkKey, verify } from "./token.js";

const OWNED = "connection keep-alive proxy-connection te trailer transfer-encoding upgrade content-length host".split(" ");

/** @type {import("witgate").FilterPlugin} */
export default function jwtFilter(config) {
  const { issuer, audience, claims, leeway, "keep-token": keepToken } = want(config, "config", {
    issuer: "text", audience: "text", claims: "texts", leeway: "integer", "keep-token": "boolean",
  }, {
    issuer: undefined, audience: undefined, claims: new Map([["sub", "x-user"]]), leeway: 0, "keep-token": false,
  });
  checkKey();
  if (leeway < 0) throw new Error("config.leeway: seconds, zero or more");
  for (const [claim, name] of claims) {
    if (OWNED.includes(name.toLowerCase()) || !/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
      throw new Error(`config.claims.${claim}: \`${name}\` is no field that can be set`);
    }
  }

  /** The fields that a good token gives the request. */
  function admit(request) {
    const [, token] = /^bearer +(.+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
    if (token === undefined) throw new Refused("missing-token");
    const found = verify(token.trim());
    check(found);
    const fields = [...claims].map(([claim, name]) => [name, asText(found[claim])]);
    return fields.filter(([, value]) => value !== undefined);
  }

  /** Times, issuer and audience (RFC 7519, section 4.1). */
  function check({ exp = Infinity, nbf = -Infinity, iss, aud }) {
    const now = Date.now() / 1000;
    if (typeof exp !== "number" || typeof nbf !== "number") throw new Refused("malformed-claim");
    if (now >= exp + leeway) throw new Refused("expired");
    if (now < nbf - leeway) throw new Refused("not-yet-valid");
    if (issuer !== undefined && iss !== issuer) throw new Refused("wrong-issuer");
    if (audience !== undefined && ![aud].flat().includes(audience)) throw new Refused("wrong-audience");
  }

  return {
    onRequest(request) {
      // Only the token may say who the client is.
      for (const name of claims.values()) request.headers.delete(name);
      try {
        for (const [name, value] of admit(request)) request.headers.set(name, value);
      } catch (error) {
        if (error instanceof Refused) return refusal(error.message);
        throw error;
      }
      if (!keepToken) request.headers.delete("authorization");
    },
    onResponse(_request, response) {
      // What one user may see must not come out of a cache for another.
      response.headers.append("vary", "authorization");
    },
  };
}

/** A claim as the value of a field. */
function asText(claim) {
  if (claim === undefined || claim === null) return undefined;
  if (typeof claim === "boolean" || Number.isInteger(claim)) return String(claim);
  const isGood = typeof claim === "string" && claim === claim.trim() && !/[\0-\x1f\x7f]/.test(claim);
  if (!isGood) throw new Refused("malformed-claim");
  return claim;
}

/** 401 with the reason for the client (RFC 6750, section 3). */
function refusal(reason) {
  const error = `Bearer error="invalid_token", error_description="${reason}"`;
  return respond(401, JSON.stringify({ error: reason }), {
    "content-type": "application/json",
    "www-authenticate": reason === "missing-token" ? "Bearer" : error,
  });
}
