"""The exports of the world `router`."""

import witgate
from wit_world.imports import connection as _connection
from wit_world.imports import request as _request
from witgate import _glue
from witgate._decide import decide

_REQUEST = witgate.Request(_request, _connection)


class Plugin:
    def configure(self, config: str) -> list[str]:
        return _glue.configure(config)


class RouterHooks:
    def route(self) -> None:
        decide(_glue.instance.route(_REQUEST))
