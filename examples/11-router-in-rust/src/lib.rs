//! A router: the tenant is the label in front of our domain, and the configuration knows which
//! upstream serves it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use witgate_sdk::{Plugin, Router, decision, request};

/// The plugin, configured.
pub struct TenantRouter {
    /// `.example.com`
    suffix: String,
    config: Config,
}

/// `config:` of the stanza.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Tenants are the labels in front of this name.
    domain: String,
    /// The upstream of each tenant, by its name in gateway.yaml.
    tenants: BTreeMap<String, String>,
    /// Tenants that have another name now: old to new.
    #[serde(default)]
    moved: BTreeMap<String, String>,
    /// The upstream of all others; without it they get 404.
    default: Option<String>,
}

impl Plugin for TenantRouter {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.domain.is_empty() || config.domain.starts_with('.') {
            return Err("config.domain: a name such as example.com, without a first dot".into());
        }
        if config.tenants.is_empty() {
            return Err("config.tenants: name at least one tenant and its upstream".into());
        }
        for (old, new) in &config.moved {
            if !config.tenants.contains_key(new) {
                return Err(format!("config.moved.{old}: `{new}` is not in config.tenants"));
            }
        }
        Ok(Self { suffix: format!(".{}", config.domain), config })
    }
}

impl Router for TenantRouter {
    fn route(&self) {
        // Whoever reads it behind us must be able to trust it.
        request::remove_header("x-tenant");
        let host = request::hostname();
        let Some(tenant) = host.strip_suffix(&self.suffix) else { return };
        if let Some(upstream) = self.config.tenants.get(tenant) {
            request::set_header("x-tenant", tenant);
            decision::to_upstream(upstream);
        } else if let Some(new) = self.config.moved.get(tenant) {
            decision::redirect(308, &self.location(new, &host));
        } else if let Some(upstream) = &self.config.default {
            decision::to_upstream(upstream);
        } else {
            let body = json!({"error": "unknown tenant", "tenant": tenant}).to_string();
            let json = ("content-type".to_owned(), "application/json".to_owned());
            decision::respond(404, &[json], body.as_bytes());
        }
    }
}

impl TenantRouter {
    /// The URL in hand with another tenant in it; its port stays.
    fn location(&self, tenant: &str, host: &str) -> String {
        let authority = request::authority();
        let port = authority.strip_prefix(host).unwrap_or_default();
        let query = request::query().map(|query| format!("?{query}")).unwrap_or_default();
        let (scheme, path) = (request::scheme(), request::path());
        format!("{scheme}://{tenant}{}{port}{path}{query}", self.suffix)
    }
}

witgate_sdk::export!(TenantRouter: router);

#[cfg(test)]
mod tests {
    use witgate_sdk::testing::{Decision, Exchange, configure};

    use super::*;

    fn router() -> TenantRouter {
        let config = json!({
            "domain": "example.com",
            "tenants": {"blue": "web-1"},
            "moved": {"azure": "blue"},
        });
        configure(config).unwrap()
    }

    #[test]
    fn a_tenant_goes_to_its_upstream() {
        let mut exchange = Exchange::get("https://blue.example.com/").header("x-tenant", "forged");
        assert_eq!(exchange.route(&router()), Some(Decision::Upstream("web-1".into())));
        assert_eq!(exchange.request_values("x-tenant"), ["blue"]);
    }

    #[test]
    fn a_moved_tenant_is_redirected_with_port_and_query() {
        let decision = Exchange::get("https://azure.example.com:8443/a?b=c").route(&router());
        let location = "https://blue.example.com:8443/a?b=c".to_owned();
        assert_eq!(decision, Some(Decision::Redirect(308, location)));
    }

    #[test]
    fn an_unknown_tenant_gets_404_and_other_hosts_go_on() {
        let decision = Exchange::get("https://x.example.com/").route(&router());
        assert!(matches!(decision, Some(Decision::Respond(404, ..))), "{decision:?}");
        assert_eq!(Exchange::get("https://example.com/").route(&router()), None);
    }

    #[test]
    fn a_mistake_names_its_key() {
        let config = json!({"domain": "a.example", "tenants": {"b": "w"}, "moved": {"c": "d"}});
        let error = configure::<TenantRouter>(config).err().unwrap();
        assert_eq!(error, "config.moved.c: `d` is not in config.tenants");
    }
}
