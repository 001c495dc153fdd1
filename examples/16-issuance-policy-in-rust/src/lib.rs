//! Asks a directory of tenants whether names may have a certificate, and by which profile. The answer for a
//! tenant is JSON such as `{"active": true, "profile": "shortlived"}`.

use serde::Deserialize;
use witgate_sdk::http::{Request, escape};
use witgate_sdk::{IssuancePolicy, Plugin, issuance, report};

struct ShopPolicy {
    directory: String,
    never: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    directory: String,
    #[serde(default)]
    never: Vec<String>,
}

/// What the directory says of a tenant.
#[derive(Deserialize)]
struct Tenant {
    active: bool,
    profile: Option<String>,
}

impl Plugin for ShopPolicy {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if let Some(domain) = config.never.iter().find(|domain| domain.starts_with(['.', '*'])) {
            return Err(format!("config.never: write the domain alone, not {domain}"));
        }
        let directory = config.directory.trim_end_matches('/').to_owned();
        Ok(Self { directory, never: config.never })
    }
}

impl IssuancePolicy for ShopPolicy {
    fn decide(&self) {
        let mut profile = None;
        for name in issuance::names() {
            match self.look_up(&name) {
                Ok(tenant) if tenant.active => profile = profile.or(tenant.profile),
                Ok(_) => return issuance::deny(&format!("the tenant of {name} is not active")),
                Err(why) => return issuance::deny(&why),
            }
        }
        if let Some(profile) = profile {
            issuance::use_profile(&profile);
        }
        issuance::allow();
    }
}

impl ShopPolicy {
    fn look_up(&self, name: &str) -> Result<Tenant, String> {
        let name = name.strip_prefix("*.").unwrap_or(name);
        let is_below = |domain: &str| {
            name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if let Some(domain) = self.never.iter().find(|domain| is_below(domain)) {
            return Err(format!("{domain} is in config.never"));
        }
        let asked = Request::get(format!("{}/{}", self.directory, escape(name))).send();
        let answer = asked.map_err(|error| {
            report::note("help", "see to it that the directory of tenants answers");
            error.to_string()
        })?;
        match answer.status {
            200 => answer.json().map_err(|error| error.to_string()),
            404 => Err(format!("nobody has {name}")),
            status => Err(format!("the directory answers {status}: {}", answer.excerpt())),
        }
    }
}

witgate_sdk::export!(ShopPolicy: issuance_policy);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use witgate_sdk::testing::{IssuanceDecision, Question, answer, configure, with_server};

    use super::*;

    fn decide(names: &[&str], status: u16, tenant: Value) -> IssuanceDecision {
        let config = json!({"directory": "http://127.0.0.1:8000/tenants/", "never": ["corp.example"]});
        let policy: ShopPolicy = configure(config).unwrap();
        let server = move |sent: &witgate_sdk::testing::Sent| {
            assert!(sent.url.starts_with("http://127.0.0.1:8000/tenants/"), "{}", sent.url);
            Ok(answer(status, tenant.clone()))
        };
        with_server(server, || Question::about(names).reason("on-demand").decide(&policy))
    }

    #[test]
    fn an_active_tenant_gets_one_by_its_profile() {
        let plain = IssuanceDecision::Allow { issuer: None, profile: None };
        assert_eq!(decide(&["a.example"], 200, json!({"active": true})), plain);
        let profile = Some("shortlived".to_owned());
        let short = IssuanceDecision::Allow { issuer: None, profile };
        let tenant = json!({"active": true, "profile": "shortlived"});
        assert_eq!(decide(&["a.example", "*.a.example"], 200, tenant), short);
    }

    #[test]
    fn nobody_else_does() {
        let denied = |decision| matches!(decision, IssuanceDecision::Deny(_));
        assert!(denied(decide(&["a.example"], 200, json!({"active": false}))));
        assert!(denied(decide(&["a.example"], 404, json!({}))));
        assert!(denied(decide(&["a.example"], 500, json!("sorry"))));
        assert!(denied(decide(&["x.corp.example"], 200, json!({"active": true}))));
        assert!(!denied(decide(&["xcorp.example"], 200, json!({"active": true}))));
    }

    #[test]
    fn a_pattern_is_no_domain() {
        let config = json!({"directory": "https://a.example", "never": ["*.b.example"]});
        let error = configure::<ShopPolicy>(config).err().unwrap();
        assert_eq!(error, "config.never: write the domain alone, not *.b.example");
    }
}
