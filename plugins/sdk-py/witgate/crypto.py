"""Keyed checks that the gateway makes, so that no key enters the plugin: for JSON Web Tokens, signed URLs and
cookies. A secret is the name of one in the plugin's stanza, which needs ``grants: {hmac: [NAME]}`` there.
"""

from __future__ import annotations

from typing import Any


class CryptoError(Exception):
    """A code of the contract: unknown-algorithm, unknown-secret, denied, bad-key."""


class _Nobody:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("there is no gateway here: a test uses witgate.testing.with_secrets")


# The gateway's, in a component.
_host: Any = _Nobody()


def _told(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except Exception as error:
        # `componentize_py_types.Err` holds the code; outside of a component there is no such class.
        code = getattr(error, "value", None)
        if isinstance(code, str):
            raise CryptoError(code) from None
        raise


def hmac(algorithm: str, secret: str, data: bytes) -> bytes:
    """The HMAC of ``data``; ``algorithm`` is sha256, sha384 or sha512."""
    return bytes(_told(_host.hmac, algorithm, secret, data))


def verify_hmac(algorithm: str, secret: str, data: bytes, code: bytes) -> bool:
    """Whether ``code`` is that HMAC, compared in constant time."""
    return _told(_host.verify_hmac, algorithm, secret, data, code)


def verify_signature(algorithm: str, public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is one of ``data``. ``algorithm`` is a name of JSON Web Algorithms, such as
    RS256; ``wit/crypto.wit`` has the form of each key."""
    return _told(_host.verify_signature, algorithm, public_key, data, signature)
