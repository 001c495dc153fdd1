"""A router: the tenant is the label in front of our domain, and the configuration knows which
upstream serves it."""

import json
from typing import Optional

import witgate
from witgate import Decision, Request


class TenantRouter:
    def __init__(self, config) -> None:
        keys = {"domain": str, "tenants": {str: str}, "moved": {str: str}, "default": str}
        config = witgate.want(config, "config", keys, {"moved": {}, "default": None})
        self.domain, self.tenants = config["domain"], config["tenants"]
        self.moved, self.default = config["moved"], config["default"]
        if not self.domain or self.domain.startswith("."):
            raise ValueError("config.domain: a name such as example.com, without a first dot")
        if not self.tenants:
            raise ValueError("config.tenants: name at least one tenant and its upstream")
        for old, new in self.moved.items():
            if new not in self.tenants:
                raise ValueError(f"config.moved.{old}: `{new}` is not in config.tenants")

    def route(self, request: Request) -> Optional[Decision]:
        # Whoever reads it behind us must be able to trust it.
        request.discard("x-tenant")
        host = request.hostname
        tenant = host.removesuffix("." + self.domain)
        if tenant == host:
            return None
        if tenant in self.tenants:
            request["x-tenant"] = tenant
            return witgate.to_upstream(self.tenants[tenant])
        if tenant in self.moved:
            return witgate.redirect(308, self.location(request, self.moved[tenant], host))
        if self.default is not None:
            return witgate.to_upstream(self.default)
        body = json.dumps({"error": "unknown tenant", "tenant": tenant})
        return witgate.respond(404, body, {"content-type": "application/json"})

    def location(self, request: Request, tenant: str, host: str) -> str:
        """The URL in hand with another tenant in it; its port stays."""
        port = request.authority.removeprefix(host)
        query = "" if request.query is None else f"?{request.query}"
        return f"{request.scheme}://{tenant}.{self.domain}{port}{request.path}{query}"


witgate.router(TenantRouter)
