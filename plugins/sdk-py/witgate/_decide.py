"""Tells the gateway what was decided. For worlds that decide."""

from __future__ import annotations

from typing import Optional

import witgate
from wit_world.imports import decision as _host


def decide(decision: Optional[witgate.Decision]) -> None:
    if decision is None:
        return
    if decision.kind == "upstream":
        _host.to_upstream(decision.target)
    elif decision.kind == "redirect":
        _host.redirect(decision.status, decision.target)
    else:
        _host.respond(decision.status, list(decision.headers.items()), decision.body)
