"""A double of the gateway for a plugin's own tests, which run under any Python without a gateway.

    request = testing.Request("https://blue.example.com/", {"x-tenant": "forged"})
    decision = Tenants({...}).route(request)
    assert request["x-tenant"] == "blue"
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator, Mapping, Optional
from urllib.parse import urlsplit

import witgate
from witgate import crypto, dns


class _Fields:
    def __init__(self, headers: Optional[Mapping[str, str]]) -> None:
        self.all = [(name.lower(), value) for name, value in (headers or {}).items()]

    def header(self, name: str) -> Optional[str]:
        return next(iter(self.header_values(name)), None)

    def header_values(self, name: str) -> list[str]:
        return [value for key, value in self.all if key == name.lower()]

    def header_names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.all))

    def set_header(self, name: str, value: str) -> None:
        if any(ord(letter) < 32 and letter != "\t" for letter in value):
            raise AssertionError(f"the gateway traps here: {name}: {value!r}")
        self.remove_header(name)
        self.append_header(name, value)

    def append_header(self, name: str, value: str) -> None:
        self.all.append((name.lower(), value))

    def remove_header(self, name: str) -> None:
        self.all = [(key, value) for key, value in self.all if key != name.lower()]


class _RequestHost(_Fields):
    def __init__(self, url: str, headers: Optional[Mapping[str, str]], method: str) -> None:
        super().__init__(headers)
        parts = urlsplit(url)
        self._values = {
            "id": "test", "method": method, "scheme": parts.scheme, "authority": parts.netloc,
            "path": parts.path or "/", "query": parts.query if "?" in url else None,
        }

    def __getattr__(self, name: str):
        if name.startswith("set_"):
            return lambda value: self._values.__setitem__(name[4:], value)
        return lambda: self._values[name]


class _ResponseHost(_Fields):
    def __init__(self, status: int, headers: Optional[Mapping[str, str]]) -> None:
        super().__init__(headers)
        self._status = status

    def status(self) -> int:
        return self._status

    def set_status(self, status: int) -> None:
        self._status = status

    def source(self) -> str:
        return "upstream"


class _Connection:
    def __init__(self, client_address: str, server_name: Optional[str]) -> None:
        self.client_address = lambda: client_address
        self.http_version = lambda: "HTTP/2"
        self.tls_server_name = lambda: server_name


class Request(witgate.Request):
    """A request for an absolute URL."""

    def __init__(
        self,
        url: str,
        headers: Optional[Mapping[str, str]] = None,
        method: str = "GET",
        client_address: str = "192.0.2.1",
    ) -> None:
        connection = _Connection(client_address, urlsplit(url).hostname)
        super().__init__(_RequestHost(url, headers, method), connection)


class Response(witgate.Response):
    """The response of an upstream."""

    def __init__(self, status: int = 200, headers: Optional[Mapping[str, str]] = None) -> None:
        super().__init__(_ResponseHost(status, headers))


@contextmanager
def with_server(server: Callable[..., dns.Answer]) -> Iterator[None]:
    """While it lasts, ``server(method, url, headers, body)`` answers what solvers send."""
    before, dns._send = dns._send, server
    try:
        yield
    finally:
        dns._send = before


class _Keyed:
    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._secrets = secrets

    def hmac(self, algorithm: str, secret: str, data: bytes) -> bytes:
        import hmac

        if algorithm not in ("sha256", "sha384", "sha512"):
            raise crypto.CryptoError("unknown-algorithm")
        if secret not in self._secrets:
            raise crypto.CryptoError("unknown-secret")
        return hmac.new(self._secrets[secret], data, algorithm).digest()

    def verify_hmac(self, algorithm: str, secret: str, data: bytes, code: bytes) -> bool:
        return self.hmac(algorithm, secret, data) == code


@contextmanager
def with_secrets(secrets: Mapping[str, bytes]) -> Iterator[None]:
    """While it lasts, :mod:`witgate.crypto` makes HMACs with these secrets."""
    before, crypto._host = crypto._host, _Keyed(secrets)
    try:
        yield
    finally:
        crypto._host = before
