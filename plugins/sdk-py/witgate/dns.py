"""What a DNS-01 solver needs beside its class.

A solver has ``find_zone(candidates) -> Zone``, ``present(zone, name, values, ttl) -> str``,
``cleanup(zone, name, values, handle)``, and may have ``poll(zone, handle) -> Optional[int]`` and
``traits() -> dict``. Each raises :class:`Failure`. Register it with :func:`solver`. Every call may
come again: a record that is there already, or gone already, is a success.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Optional
from urllib.parse import quote

import witgate

__all__ = ["Answer", "Failure", "Zone", "escape", "secret", "send", "solver"]


@dataclass(frozen=True)
class Zone:
    """A zone at the provider: its name, one of the candidates, and the provider's id of it."""

    name: str
    handle: str = ""


class Failure(Exception):
    """Why a call did not succeed: a code of ``wit/dns-solver.wit``, and words for the operator."""

    def __init__(self, code: str, message: str, retry_after: Optional[int] = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after = code, message, retry_after

    @classmethod
    def zone_not_found(cls, candidates: list[str]) -> Failure:
        names = ", ".join(candidates)
        return cls("zone-not-found", f"the account has no zone for any of: {names}")

    @classmethod
    def from_answer(cls, answer: Answer, message: str) -> Failure:
        """The failure that an answer's status stands for; ``message``: the provider's own words."""
        codes = {401: "auth", 402: "account-not-entitled", 403: "forbidden", 404: "zone-not-found",
                 408: "unavailable", 409: "conflict", 412: "conflict", 425: "unavailable",
                 429: "rate-limited"}
        default = "invalid" if 400 <= answer.status < 500 else "unavailable"
        code = codes.get(answer.status, default)
        wait = answer.header("retry-after") or ""
        is_worth = code in ("rate-limited", "unavailable") and wait.isdigit()
        return cls(code, message, int(wait) if is_worth else None)


@dataclass(frozen=True)
class Answer:
    """An answer; a status of 4xx or 5xx is one too."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> Optional[str]:
        """The first value of a field; names are in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body read as JSON.

        :raises Failure: ``unavailable`` when it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            words = f"the answer (status {self.status}) is no JSON: {error}"
            raise Failure("unavailable", words) from error


def send(
    method: str,
    url: str,
    *,
    json_body: Any = None,
    headers: Optional[dict[str, str]] = None,
    bearer: Optional[str] = None,
) -> Answer:
    """Sends a request through the gateway, within ``grants`` of the stanza.

    ``bearer`` is the NAME of a secret: its value never enters the plugin.

    :raises Failure: when there is no answer.
    """
    fields = dict(headers or {})
    body = b""
    if json_body is not None:
        body = json.dumps(json_body).encode()
        fields["content-type"] = "application/json"
    if bearer is not None:
        fields["authorization"] = f"Bearer {secret(bearer)}"
    return _send(method, url, list(fields.items()), body)


def secret(name: str) -> str:
    """The placeholder of a secret, for a header value, the query or the body."""
    return "{{secret:" + name + "}}"


def escape(text: str) -> str:
    """Percent-encodes text for one segment of a path or one part of a query."""
    return quote(text, safe="")


def solver(plugin: Callable[[Any], Any]) -> None:
    """Makes ``plugin`` (a class, called with the configuration) the solver of this component."""
    witgate._register(plugin)


def _nobody(method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
    raise Failure("unavailable", "there is no gateway; see witgate.testing.with_server")


_send: Callable[..., Answer] = _nobody
