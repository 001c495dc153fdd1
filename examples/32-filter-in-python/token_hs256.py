"""Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). The gateway checks them: the
key is a secret that stays there."""

import binascii
import json
from base64 import b64decode, urlsafe_b64encode
from typing import Any

from witgate import crypto

# The name of the secret that tokens are signed with.
KEY = "key"


class Refused(Exception):
    """Why a token is not taken, as a word for the client."""


def verify(token: str) -> dict[str, Any]:
    """The claims of a token, once its signature has been found good."""
    parts = token.split(".")
    if len(parts) != 3:
        raise Refused("malformed-token")
    header = as_map(parts[0])
    # The token does not get to choose how it is checked: there is no `none` here.
    if header.get("alg") != "HS256":
        raise Refused("unsupported-algorithm")
    signed = f"{parts[0]}.{parts[1]}".encode()
    if not crypto.verify_hmac("sha256", KEY, signed, decode(parts[2])):
        raise Refused("bad-signature")
    return as_map(parts[1])


def sign(claims: dict[str, Any]) -> str:
    """A token with these claims, for tests."""
    encode = lambda data: urlsafe_b64encode(data).rstrip(b"=").decode()
    signed = encode(b'{"alg":"HS256","typ":"JWT"}') + "." + encode(json.dumps(claims).encode())
    return signed + "." + encode(crypto.hmac("sha256", KEY, signed.encode()))


def as_map(part: str) -> dict[str, Any]:
    try:
        value = json.loads(decode(part))
    except ValueError:
        raise Refused("malformed-token") from None
    if not isinstance(value, dict):
        raise Refused("malformed-token")
    return value


def decode(part: str) -> bytes:
    try:
        padded = part + "=" * (-len(part) % 4)
        return b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise Refused("malformed-token") from None
