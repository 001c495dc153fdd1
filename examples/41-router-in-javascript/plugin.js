// A router: the tenant is the label in front of our domain, and the configuration knows which
// upstream serves it.
import { redirect, respond, toUpstream, want } from "witgate";

/** @type {import("witgate").RouterPlugin} */
export default function tenantRouter(config) {
  const optional = { moved: new Map(), default: undefined };
  const { domain, tenants, moved, default: others } = want(config, "config", {
    domain: "text", tenants: "texts", moved: "texts", default: "text",
  }, optional);
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

  return {
    route(request) {
      // Whoever reads it behind us must be able to trust it.
      request.headers.delete("x-tenant");
      const host = request.hostname;
      if (!host.endsWith(suffix)) return;
      const tenant = host.slice(0, -suffix.length);
      if (tenants.has(tenant)) {
        request.headers.set("x-tenant", tenant);
        return toUpstream(tenants.get(tenant));
      }
      if (moved.has(tenant)) {
        // The URL in hand with another tenant in it; its port stays.
        const port = request.authority.slice(host.length);
        const query = request.query === undefined ? "" : `?${request.query}`;
        const target = `${port}${request.path}${query}`;
        return redirect(308, `${request.scheme}://${moved.get(tenant)}${suffix}${target}`);
      }
      if (others !== undefined) return toUpstream(others);
      const body = JSON.stringify({ error: "unknown tenant", tenant });
      return respond(404, body, { "content-type": "application/json" });
    },
  };
}
