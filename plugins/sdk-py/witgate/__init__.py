"""Write Witgate plugins in Python.

A plugin is one class with a module-level call that says what it is::

    import witgate
    from witgate import Request, respond

    class Tagger:
        def __init__(self, config):            # config: what stands under `config:` in gateway.yaml
            self.tag = witgate.want(config, "config", {"tag": str})["tag"]

        def on_request(self, request: Request):
            request["x-tag"] = self.tag

    witgate.filter(Tagger)

Hooks return a decision (:func:`to_upstream`, :func:`redirect`, :func:`respond`) or nothing, which
lets the request go on. ``__init__`` raises ``ValueError`` with a text for the operator when the
configuration makes no sense. Import all modules at the top: when a hook runs there are no files to
import from. Calls reach the gateway only inside a hook; in tests
:mod:`witgate.testing` stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping, MutableMapping, Optional, Union

__all__ = [
    "Decision", "Request", "Response", "filter", "log", "redirect", "respond", "router",
    "to_upstream", "want",
]


class _Head(MutableMapping[str, str]):
    """Header fields as a mapping: names in any case; reading gives the first value."""

    def __init__(self, host: Any) -> None:
        self._host = host

    def __getitem__(self, name: str) -> str:
        value = self._host.header(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        self._host.set_header(name, value)

    def __delitem__(self, name: str) -> None:
        self._host.remove_header(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._host.header_names())

    def __len__(self) -> int:
        return len(self._host.header_names())

    def discard(self, name: str) -> None:
        """Removes a field with all its values; does nothing when it is absent."""
        self._host.remove_header(name)

    def add(self, name: str, value: str) -> None:
        """Adds a value to a field beside those it has."""
        self._host.append_header(name, value)

    def values_of(self, name: str) -> list[str]:
        """All values of a field, in the order they came."""
        return list(self._host.header_values(name))


class Request(_Head):
    """The request in hand. Fields by ``request["name"]``; what may be changed has a setter."""

    def __init__(self, host: Any, connection: Any) -> None:
        super().__init__(host)
        self._connection = connection

    @property
    def client_address(self) -> str:
        """The client's IP address."""
        return self._connection.client_address()

    @property
    def http_version(self) -> str:
        """Such as ``HTTP/2``."""
        return self._connection.http_version()

    @property
    def server_name(self) -> Optional[str]:
        """The name in the client's ClientHello."""
        return self._connection.tls_server_name()

    id = property(lambda self: self._host.id(), doc="The id of this exchange, as in the log.")
    scheme = property(lambda self: self._host.scheme(), doc="``https`` or ``http``.")

    @property
    def method(self) -> str:
        return self._host.method()

    @method.setter
    def method(self, method: str) -> None:
        self._host.set_method(method)

    @property
    def authority(self) -> str:
        """Host in lower case, and the port when the client sent one."""
        return self._host.authority()

    @authority.setter
    def authority(self, authority: str) -> None:
        self._host.set_authority(authority)

    @property
    def hostname(self) -> str:
        """The host of :attr:`authority`, without a port."""
        authority = self._host.authority()
        end = authority.rfind(":")
        return authority if end < 0 or authority.endswith("]") else authority[:end]

    @property
    def path(self) -> str:
        """Percent-encoded, without the query."""
        return self._host.path()

    @path.setter
    def path(self, path: str) -> None:
        self._host.set_path(path)

    @property
    def query(self) -> Optional[str]:
        """Without its ``?``; None when there is none."""
        return self._host.query()

    @query.setter
    def query(self, query: Optional[str]) -> None:
        self._host.set_query(query)


class Response(_Head):
    """The response in hand."""

    source = property(lambda self: self._host.source(), doc="``upstream``, ``plugin``, ``gateway``.")

    @property
    def status(self) -> int:
        return self._host.status()

    @status.setter
    def status(self, status: int) -> None:
        self._host.set_status(status)


@dataclass(frozen=True)
class Decision:
    """What becomes of a request; see :func:`to_upstream`, :func:`redirect`, :func:`respond`."""

    kind: str
    status: int = 0
    target: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def to_upstream(name: str) -> Decision:
    """Sends the request to an upstream by its name in gateway.yaml. Routers only."""
    return Decision("upstream", target=name)


def redirect(status: int, location: str) -> Decision:
    """Answers with a redirect: 301, 302, 303, 307 or 308."""
    return Decision("redirect", status, location)


def respond(
    status: int, body: Union[str, bytes] = b"", headers: Optional[Mapping[str, str]] = None
) -> Decision:
    """Answers with a response of the plugin's own."""
    text = body.encode() if isinstance(body, str) else body
    return Decision("respond", status, headers=headers or {}, body=text)


def log(message: str, level: str = "info") -> None:
    """Writes a line to the gateway's log: ``error``, ``warn``, ``info``, ``debug``, ``trace``."""
    _log(level, message)


def want(
    value: Any, path: str, keys: Mapping[str, Any], defaults: Optional[Mapping[str, Any]] = None
) -> dict[str, Any]:
    """Checks a map of the configuration: every key of ``keys`` with its type, none else.

    A type is a class, or ``{str: TYPE}`` for a map. Keys in ``defaults`` may be left out.

    :raises ValueError: with the path of the key, for the operator.
    """
    defaults = defaults or {}
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a map was expected, not {_shown(value)}")
    for key in value:
        if key not in keys:
            raise ValueError(f"{path}.{key}: unknown key, expected one of {', '.join(keys)}")
    found = {}
    for key, kind in keys.items():
        if key in value and value[key] is not None:
            found[key] = _check(value[key], f"{path}.{key}", kind)
        elif key in defaults:
            found[key] = defaults[key]
        else:
            raise ValueError(f"{path}.{key}: is missing")
    return found


def _check(value: Any, path: str, kind: Any) -> Any:
    if isinstance(kind, dict):
        (inner,) = kind.values()
        if not isinstance(value, dict):
            raise ValueError(f"{path}: a map was expected, not {_shown(value)}")
        return {key: _check(one, f"{path}.{key}", inner) for key, one in value.items()}
    # `True` is an int to Python.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {str: "a text", int: "a whole number", bool: "true or false", dict: "a map"}
        raise ValueError(f"{path}: {names.get(kind, kind)} was expected, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)[:60]


# What the world's glue registers, and what it reads.
_plugin: Optional[Callable[[Any], Any]] = None
_log: Callable[[str, str], None] = lambda level, message: print(f"{level}: {message}")


def router(plugin: Callable[[Any], Any]) -> None:
    """Makes ``plugin`` (a class, called with the configuration) the router of this component.

    It has ``route(request)``, which returns a decision or None.
    """
    _register(plugin)


def filter(plugin: Callable[[Any], Any]) -> None:
    """Makes ``plugin`` the filter of this component.

    It has any of ``on_request(request)``, ``on_request_body(request, prefix, is_complete)`` with an
    attribute ``body_bytes``, and ``on_response(request, response)``; what it has not costs nothing.
    """
    _register(plugin)


def _register(plugin: Callable[[Any], Any]) -> None:
    global _plugin
    _plugin = plugin
