// A router: the tenant is the label in front of our domain, and the configuration knows which
// upstream serves it.
import { redirect, respond, toUpstream, want } from "witgate";
import type { Decision, Request, Router } from "witgate";

export default function tenantRouter(config: unknown): Router {
  const keys = { domain: "text", tenants: "texts", moved: "texts", default: "text" } as const;
  const optional = { moved: new Map<string, string>(), default: undefined };
  const { domain, tenants, moved, default: others } = want(config, "config", keys, optional);
  if (domain === "" || domain.startsWith(".")) {
    throw new Error("config.domain: a name such as example.com, without a first dot");
  }
  if (tenants.size === 0) {
    throw new Error("config.tenants: name at least one tenant and its upstream");
  }
  for (const [old, name] of moved) {
    if (!tenants.has(name)) throw new Error(`config.moved.${old}: \`${name}\` is not in config.tenants`);
  }
  const suffix = `.${domain}`;

  /** The URL in hand with another tenant in it; its port stays. */
  function location(request: Request, tenant: string): string {
    const port = request.authority.slice(request.hostname.length);
    const query = request.query === undefined ? "" : `?${request.query}`;
    return `${request.scheme}://${tenant}${suffix}${port}${request.path}${query}`;
  }

  return {
    route(request): Decision {
      // Whoever reads it behind us must be able to trust it.
      request.headers.delete("x-tenant");
      const host = request.hostname;
      if (!host.endsWith(suffix)) return;
      const tenant = host.slice(0, -suffix.length);
      const upstream = tenants.get(tenant);
      if (upstream !== undefined) {
        request.headers.set("x-tenant", tenant);
        return toUpstream(upstream);
      }
      const name = moved.get(tenant);
      if (name !== undefined) return redirect(308, location(request, name));
      if (others !== undefined) return toUpstream(others);
      const body = JSON.stringify({ error: "unknown tenant", tenant });
      return respond(404, body, { "content-type": "application/json" });
    },
  };
}
