"""The exports about bodies, beside those of the world ``filter``."""

from wit_world.imports import body as _body_host
from witgate import body as _bodies

_bodies._host = _body_host


class BodyHooks:
    def on_chunk(self, body: int, chunk: bytes) -> None:
        _bodies._chunk(body, chunk)

    def on_finish(self, body: int) -> None:
        _bodies._finish(body)

    def on_abandon(self, body: int) -> None:
        _bodies._abandon(body)
