//! Decides about handshakes before any key is touched: refuses clients by their fingerprint, by what they
//! speak or by how often they come, passes names through unopened, and serves names as others.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use witgate_sdk::{ClientHello, Plugin, hello, state};

struct HelloGuard {
    block: BTreeSet<String>,
    pass: BTreeMap<String, String>,
    aliases: BTreeMap<String, String>,
    is_tls13_asked: bool,
    per_minute: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    block: BTreeSet<String>,
    #[serde(default)]
    pass: BTreeMap<String, String>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    #[serde(default)]
    tls13: bool,
    #[serde(default)]
    handshakes_per_minute: u32,
}

impl Plugin for HelloGuard {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if let Some(name) = config.aliases.keys().find(|name| config.pass.contains_key(*name)) {
            return Err(format!("config.aliases.{name}: it is passed through, see config.pass"));
        }
        Ok(Self {
            block: config.block,
            pass: config.pass,
            aliases: config.aliases,
            is_tls13_asked: config.tls13,
            per_minute: config.handshakes_per_minute.into(),
        })
    }
}

impl ClientHello for HelloGuard {
    fn on_client_hello(&self) {
        if !self.block.is_empty() && self.block.contains(&hello::ja4()) {
            return hello::refuse("access_denied");
        }
        if self.is_tls13_asked && !hello::versions().iter().any(|version| version == "TLSv1.3") {
            return hello::refuse("protocol_version");
        }
        if self.per_minute > 0 && self.is_over() {
            return hello::refuse("access_denied");
        }
        let Some(name) = hello::server_name() else { return };
        if let Some(upstream) = self.pass.get(&name) {
            hello::pass_through(upstream);
        } else if let Some(other) = self.aliases.get(&name) {
            hello::terminate_as(other);
        }
    }
}

impl HelloGuard {
    /// Whether this address has come more often than it may in this minute.
    fn is_over(&self) -> bool {
        let key = format!("hello {}", hello::client_address());
        // A state that is full counts nobody; it must not lock everybody out.
        state::increment(&key, 1, Some(60)).is_ok_and(|count| count > self.per_minute)
    }
}

witgate_sdk::export!(HelloGuard: client_hello);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use witgate_sdk::testing::{Hello, HelloDecision, configure};

    use super::*;

    #[test]
    fn names_lead_on_and_through() {
        let guard: HelloGuard = configure(json!({
            "pass": {"mail.example": "mail"},
            "aliases": {"old.example": "new.example"},
        }))
        .unwrap();
        let through = HelloDecision::PassThrough("mail".to_owned());
        assert_eq!(Hello::to("mail.example").decide(&guard), Some(through));
        let other = HelloDecision::TerminateAs("new.example".to_owned());
        assert_eq!(Hello::to("Old.example").decide(&guard), Some(other));
        assert_eq!(Hello::to("app.example").decide(&guard), None);
        assert_eq!(Hello::to("").decide(&guard), None);
    }

    #[test]
    fn clients_are_refused_by_what_they_are_and_how_often_they_come() {
        let guard: HelloGuard = configure(json!({
            "block": ["t13bad"], "tls13": true, "handshakes-per-minute": 2,
        }))
        .unwrap();
        let refused = |alert: &str| Some(HelloDecision::Refuse(alert.to_owned()));
        let from = |address: &str| Hello::to("a.example").client(address);
        assert_eq!(from("192.0.2.1").ja4("t13bad").decide(&guard), refused("access_denied"));
        let old = from("192.0.2.1").versions(&["TLSv1.2"]).decide(&guard);
        assert_eq!(old, refused("protocol_version"));
        assert_eq!(from("192.0.2.2").decide(&guard), None);
        assert_eq!(from("192.0.2.2").decide(&guard), None);
        assert_eq!(from("192.0.2.2").decide(&guard), refused("access_denied"));
        assert_eq!(from("192.0.2.3").decide(&guard), None);
    }

    #[test]
    fn a_name_has_one_meaning() {
        let twice = json!({"pass": {"a.example": "x"}, "aliases": {"a.example": "b.example"}});
        let error = configure::<HelloGuard>(twice).err().unwrap();
        assert_eq!(error, "config.aliases.a.example: it is passed through, see config.pass");
    }
}
