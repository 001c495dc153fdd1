"""A filter: lets requests through that carry a JWT signed with HMAC-SHA256 (RFC 7519, `HS256` of
RFC 7518), and hands its claims to the application as fields. The application need not know about
tokens, and cannot be told lies by clients."""

import json
import re
import time
from typing import Any, Optional

import token_hs256
import witgate
from token_hs256 import Refused
from witgate import Decision, Request, Response, crypto

OWNED = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
         "upgrade", "content-length", "host"}


class JwtFilter:
    def __init__(self, config) -> None:
        keys = {"issuer": str, "audience": str, "claims": {str: str}, "leeway": int,
                "keep-token": bool}
        defaults = {"issuer": None, "audience": None, "claims": {"sub": "x-user"}, "leeway": 0,
                    "keep-token": False}
        config = witgate.want(config, "config", keys, defaults)
        self.issuer, self.audience = config["issuer"], config["audience"]
        self.claims, self.leeway = config["claims"], config["leeway"]
        self.keep_token = config["keep-token"]
        try:
            crypto.hmac("sha256", token_hs256.KEY, b"")
        except crypto.CryptoError as error:
            # Better now than at the first request.
            raise ValueError(f"secrets.key: {error}") from None
        if self.leeway < 0:
            raise ValueError("config.leeway: seconds, zero or more")
        for claim, name in self.claims.items():
            if name.lower() in OWNED or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"config.claims.{claim}: `{name}` is no field that can be set")

    def on_request(self, request: Request) -> Optional[Decision]:
        # Only the token may say who the client is.
        for name in self.claims.values():
            request.discard(name)
        try:
            fields = self.admit(request)
        except Refused as refused:
            return refusal(str(refused))
        request.update(fields)
        if not self.keep_token:
            request.discard("authorization")
        return None

    def on_response(self, request: Request, response: Response) -> None:
        # What one user may see must not come out of a cache for another.
        response.add("vary", "authorization")

    def admit(self, request: Request) -> dict[str, str]:
        """The fields that a good token gives the request."""
        scheme, _, token = request.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused("missing-token")
        claims = token_hs256.verify(token.strip())
        self.check(claims)
        fields = {name: as_text(claims.get(claim)) for claim, name in self.claims.items()}
        return {name: text for name, text in fields.items() if text is not None}

    def check(self, claims: dict[str, Any]) -> None:
        """Times, issuer and audience (RFC 7519, section 4.1)."""
        now = time.time()
        for name in ("exp", "nbf"):
            number = claims.get(name, 0)
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise Refused("malformed-claim")
        if "exp" in claims and now >= claims["exp"] + self.leeway:
            raise Refused("expired")
        if "nbf" in claims and now < claims["nbf"] - self.leeway:
            raise Refused("not-yet-valid")
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise Refused("wrong-issuer")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self.audience is not None and self.audience not in audiences:
            raise Refused("wrong-audience")


def as_text(claim: Any) -> Optional[str]:
    """A claim as the value of a field."""
    if claim is None:
        return None
    if isinstance(claim, bool):
        return "true" if claim else "false"
    if isinstance(claim, int):
        return str(claim)
    if not isinstance(claim, str) or claim != claim.strip(" \t"):
        raise Refused("malformed-claim")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in claim):
        raise Refused("malformed-claim")
    return claim


def refusal(reason: str) -> Decision:
    """401 with the reason for the client (RFC 6750, section 3)."""
    challenge = "Bearer"
    if reason != "missing-token":
        challenge += f' error="invalid_token", error_description="{reason}"'
    headers = {"content-type": "application/json", "www-authenticate": challenge}
    return witgate.respond(401, json.dumps({"error": reason}), headers)


witgate.filter(JwtFilter)
