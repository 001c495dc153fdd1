"""The exports of the world `dns-solver`."""

from typing import Optional

from componentize_py_types import Err
from wit_world.exports.dns_solver_hooks import Failure as _Failure
from wit_world.imports import http as _http
from witgate import _glue, dns


def _send(method: str, url: str, headers: list[tuple[str, str]], body: bytes) -> dns.Answer:
    try:
        answer = _http.send(method, url, headers, body)
    except Err as error:
        failure = error.value
        codes = {
            "denied": "forbidden",
            "unknown-secret": "auth",
            "refused-credential": "auth",
            "bad-request": "invalid",
        }
        raise dns.Failure(codes.get(failure.code, "unavailable"), failure.message) from None
    return dns.Answer(answer.status, list(answer.headers), bytes(answer.body))


dns._send = _send


def _told(call):
    try:
        return call()
    except dns.Failure as failure:
        raise Err(_Failure(failure.code, failure.message, failure.retry_after)) from None


class Plugin:
    def configure(self, config: str) -> list[str]:
        return _glue.configure(config)


class DnsSolverHooks:
    def traits(self) -> list[tuple[str, str]]:
        solver = _glue.instance
        traits = solver.traits() if hasattr(solver, "traits") else {}
        return [(name, str(value)) for name, value in traits.items()]

    def find_zone(self, candidates: list[str]) -> tuple[str, str]:
        zone = _told(lambda: _glue.instance.find_zone(candidates))
        return zone.name, zone.handle

    def present(
        self, zone: str, zone_handle: str, name: str, values: list[str], ttl_seconds: int
    ) -> str:
        at = dns.Zone(zone, zone_handle)
        return _told(lambda: _glue.instance.present(at, name, values, ttl_seconds))

    def poll(self, zone: str, zone_handle: str, handle: str) -> Optional[int]:
        if not hasattr(_glue.instance, "poll"):
            return None
        return _told(lambda: _glue.instance.poll(dns.Zone(zone, zone_handle), handle))

    def cleanup(
        self, zone: str, zone_handle: str, name: str, values: list[str], handle: str
    ) -> None:
        at = dns.Zone(zone, zone_handle)
        _told(lambda: _glue.instance.cleanup(at, name, values, handle))
