"""The body of the message in hand, as it passes. Inside ``on_request`` and ``on_response`` a filter asks for it with
``transform`` or ``observe``, and gives an object that gets its pieces::

    class Upper:
        def chunk(self, chunk: bytes) -> bytes:
            return chunk.upper()

    class Plugin:
        def on_response(self, request, response):
            body.transform(Upper())

``plugin.yaml`` asks for bodies by ``grants: {response: {body: transform}}`` or ``request``.
"""

from __future__ import annotations

from typing import Any, Iterable, Optional, Protocol, Union

from witgate.crypto import _Nobody

#: What goes on in place of a chunk: nothing, the chunk itself (which is not copied), bytes, or some pieces.
Given = Union[bytes, Iterable[bytes], None]


class BodyError(Exception):
    """A code of the contract: denied, no-body, encoded, partial, again."""


class Handler(Protocol):
    """What a filter does with one body. It may also have ``finish``, which returns what goes on at the end, and
    ``abandon``, called in its place when the body will not come to its end."""

    def chunk(self, chunk: bytes) -> Given:
        """The next piece, at most 64 KiB. Returns what goes on in its place."""


# The gateway's, in a component whose plugin.yaml asks for bodies.
_host: Any = _Nobody()
_all: dict[int, tuple[Any, bool]] = {}


def _ask(call: Any) -> Any:
    try:
        return call()
    except Exception as error:
        code = getattr(error, "value", None)
        if isinstance(code, str):
            raise BodyError(code) from None
        raise


def transform(handler: Handler) -> None:
    """Changes the body of the message in hand as it passes."""
    _all[_ask(lambda: _host.transform())] = (handler, True)


def observe(handler: Handler) -> None:
    """Looks at the body of the message in hand as it passes, and leaves it as it is."""
    _all[_ask(lambda: _host.observe())] = (handler, False)


def expect_response() -> None:
    """Inside ``on_request``: asks the upstream for a response that can be transformed, whole and without a
    content coding."""
    _ask(lambda: _host.expect_response())


def _give(given: Given, chunk: Optional[bytes]) -> None:
    if given is None:
        return
    if given is chunk:
        _host.pass_()
    elif isinstance(given, (bytes, bytearray)):
        _host.write(bytes(given))
    else:
        for piece in given:
            _give(piece, chunk)


def _chunk(number: int, chunk: bytes) -> None:
    handler, changes = _all[number]
    given = handler.chunk(chunk)
    if changes:
        _give(given, chunk)


def _finish(number: int) -> None:
    handler, changes = _all.pop(number)
    given = handler.finish() if hasattr(handler, "finish") else None
    if changes:
        _give(given, None)


def _abandon(number: int) -> None:
    handler, _ = _all.pop(number, (None, False))
    if hasattr(handler, "abandon"):
        handler.abandon()
