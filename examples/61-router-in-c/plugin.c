/* A router: the tenant is the label in front of our domain, and the configuration knows which upstream
 * serves it. */
#include "witgate.h"

#include <string.h>

static const char *domain, *suffix, *other;
static const wg_json *tenants, *moved;

const char *plugin_configure(const wg_json *config) {
    const wg_key keys[] = {
        {"domain", WG_AS_TEXT, true, &domain},
        {"tenants", WG_AS_TEXTS, true, &tenants},
        {"moved", WG_AS_TEXTS, false, &moved},
        {"default", WG_AS_TEXT, false, &other},
    };
    const char *error = wg_want(config, keys, sizeof keys / sizeof keys[0]);
    if (error != NULL) return error;
    if (domain[0] == 0 || domain[0] == '.') return "config.domain: a name such as example.com, without a first dot";
    if (tenants->first == NULL) return "config.tenants: name at least one tenant and its upstream";
    for (const wg_json *old = moved == NULL ? NULL : moved->first; old != NULL; old = old->next) {
        if (wg_json_get(tenants, old->text) == NULL) {
            return wg_format("config.moved.%s: `%s` is not in config.tenants", old->key, old->text);
        }
    }
    suffix = wg_format(".%s", domain);
    return NULL;
}

/* The URL in hand with another tenant in it; its port stays. */
static const char *location(const char *tenant, const char *host) {
    const char *port = wg_request_authority() + strlen(host), *query = wg_request_query();
    return wg_format("%s://%s%s%s%s%s%s", wg_request_scheme(), tenant, suffix, port, wg_request_path(),
                     query == NULL ? "" : "?", query == NULL ? "" : query);
}

void plugin_route(void) {
    /* Whoever reads it behind us must be able to trust it. */
    wg_request_remove_header("x-tenant");
    const char *host = wg_request_hostname(), *tenant = wg_without_suffix(host, suffix);
    if (tenant == NULL) return;
    const char *upstream = wg_json_text(tenants, tenant), *new = wg_json_text(moved, tenant);
    if (upstream != NULL) {
        wg_request_set_header("x-tenant", tenant);
        wg_to_upstream(upstream);
    } else if (new != NULL) {
        wg_redirect(308, location(new, host));
    } else if (other != NULL) {
        wg_to_upstream(other);
    } else {
        const char *body = wg_format("{\"error\":\"unknown tenant\",\"tenant\":%s}", wg_json_quote(tenant));
        wg_respond(404, body, WG_PAIRS({"content-type", "application/json"}));
    }
}
