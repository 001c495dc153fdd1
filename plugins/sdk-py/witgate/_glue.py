"""What the exports of all worlds share. Names `wit_world`, so it is there in components alone."""

from __future__ import annotations

import json

# Parts of the standard library import it when they are called. There are no files any more when a
# hook runs: what is to be there then has to be imported before.
import warnings  # noqa: F401
from typing import Any

import witgate
from componentize_py_types import Err
from wit_world.imports import crypto as _crypto
from wit_world.imports import log as _log
from wit_world.imports import state as _state
from witgate import crypto, state

witgate._log = _log.write
state._host = _state
crypto._host = _crypto

instance: Any = None


def configure(config: str) -> list[str]:
    """Makes the plugin. Names no hooks."""
    global instance
    if witgate._plugin is None:
        raise Err("the module registers no plugin: call witgate.router, .filter or .dns.solver")
    try:
        instance = witgate._plugin(json.loads(config))
    except ValueError as error:
        raise Err(str(error)) from None
    return []
