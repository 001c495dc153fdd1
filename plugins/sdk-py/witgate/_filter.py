"""The exports of the world `filter`."""

import witgate
from wit_world.imports import connection as _connection
from wit_world.imports import request as _request
from wit_world.imports import response as _response
from witgate import _glue
from witgate._decide import decide

_REQUEST = witgate.Request(_request, _connection)
_RESPONSE = witgate.Response(_response)


class Plugin:
    def configure(self, config: str) -> list[str]:
        _glue.configure(config)
        names = {"on_request": "request", "on_response": "response"}
        hooks = [hook for name, hook in names.items() if hasattr(_glue.instance, name)]
        if hasattr(_glue.instance, "on_request_body"):
            hooks.append(f"request-body:{_glue.instance.body_bytes}")
        return hooks


class FilterHooks:
    def on_request(self) -> None:
        decide(_glue.instance.on_request(_REQUEST))

    def on_request_body(self, prefix: bytes, complete: bool) -> None:
        decide(_glue.instance.on_request_body(_REQUEST, prefix, complete))

    def on_response(self) -> None:
        _glue.instance.on_response(_REQUEST, _RESPONSE)
