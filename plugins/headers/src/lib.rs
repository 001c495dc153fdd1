//! Sets, appends and removes header fields of requests and responses; with a preset of security
//! fields. Everything is checked and prepared in `configure`: a hook only walks a list.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use witgate_sdk::{Filter, Hook, Plugin, field, request, response};

use crate::value::{Text, Value};

mod value;

witgate_sdk::lean!();
witgate_sdk::export!(Headers: filter);

/// The plugin, configured.
#[derive(Debug)]
pub struct Headers {
    request: Vec<Edit>,
    response: Vec<Edit>,
    /// Sent over https alone (RFC 6797, section 7.2).
    strict_transport_security: Option<&'static str>,
}

/// One change of a head.
#[derive(Debug)]
enum Edit {
    Remove(String),
    Set(String, Value),
    Append(String, Value),
}

/// `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    request: Changes,
    #[serde(default)]
    response: Changes,
    #[serde(default)]
    security: Security,
}

/// Changes of one head: first what is removed, then what is set, then what is appended.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    set: BTreeMap<String, Text>,
    #[serde(default)]
    append: BTreeMap<String, value::OneOrMany>,
}

/// Whether the preset is on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Security {
    #[default]
    Off,
    Strict,
}

impl Plugin for Headers {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let request = edits("request", &config.request)?;
        let mut response = edits("response", &config.response)?;
        let mut strict_transport_security = None;
        if config.security == Security::Strict {
            let is_free = |name: &str| !response.iter().any(|edit| edit.name() == name);
            if is_free("strict-transport-security") {
                strict_transport_security = Some(STRICT_TRANSPORT_SECURITY);
            }
            let set = STRICT.iter().filter(|(name, _)| is_free(name));
            let set = set.map(|(name, value)| Edit::Set((*name).into(), Value::fixed(value)));
            let removed = STRICT_REMOVED.iter().filter(|name| is_free(name));
            let removed = removed.map(|name| Edit::Remove((*name).into()));
            let preset: Vec<Edit> = removed.chain(set).collect();
            response.extend(preset);
        }
        Ok(Self { request, response, strict_transport_security })
    }

    fn hooks(&self) -> Vec<Hook> {
        let mut hooks = Vec::new();
        if !self.request.is_empty() {
            hooks.push(Hook::Request);
        }
        if !self.response.is_empty() {
            hooks.push(Hook::Response);
        }
        // An empty list would ask for both hooks.
        if hooks.is_empty() {
            hooks.push(Hook::None);
        }
        hooks
    }
}

impl Filter for Headers {
    fn on_request(&self) {
        for edit in &self.request {
            match edit {
                Edit::Remove(name) => request::remove_header(name),
                Edit::Set(name, value) => value.with(|value| request::set_header(name, value)),
                Edit::Append(name, value) => {
                    value.with(|value| request::append_header(name, value));
                }
            }
        }
    }

    fn on_response(&self) {
        for edit in &self.response {
            match edit {
                Edit::Remove(name) => response::remove_header(name),
                Edit::Set(name, value) => value.with(|value| response::set_header(name, value)),
                Edit::Append(name, value) => {
                    value.with(|value| response::append_header(name, value));
                }
            }
        }
        if let Some(value) = self.strict_transport_security
            && request::scheme() == "https"
        {
            response::set_header("strict-transport-security", value);
        }
    }
}

impl Edit {
    fn name(&self) -> &str {
        match self {
            Self::Remove(name) | Self::Set(name, _) | Self::Append(name, _) => name,
        }
    }
}

fn edits(head: &str, changes: &Changes) -> Result<Vec<Edit>, String> {
    let mut edits = Vec::new();
    for (index, name) in changes.remove.iter().enumerate() {
        let name = field::check_changeable(name)
            .map_err(|error| format!("config.{head}.remove[{index}]: {error}"))?;
        edits.push(Edit::Remove(name));
    }
    for (name, text) in &changes.set {
        let at = |error| format!("config.{head}.set.{name}: {error}");
        let key = field::check_changeable(name).map_err(at)?;
        edits.push(Edit::Set(key, Value::parse(text).map_err(at)?));
    }
    for (name, texts) in &changes.append {
        let at = |error| format!("config.{head}.append.{name}: {error}");
        let key = field::check_changeable(name).map_err(at)?;
        for text in texts.iter() {
            edits.push(Edit::Append(key.clone(), Value::parse(text).map_err(at)?));
        }
    }
    Ok(edits)
}

/// Two years, what the preload list of browsers asks for.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=63072000; includeSubDomains";

/// `security: strict`.
const STRICT: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()",
    ),
    ("cross-origin-opener-policy", "same-origin"),
];

/// Fields that only tell an attacker what runs behind the gateway.
const STRICT_REMOVED: [&str; 2] = ["server", "x-powered-by"];

#[cfg(test)]
mod tests {
    use serde_json::json;
    use witgate_sdk::testing::{Exchange, configure};

    use super::*;

    #[test]
    fn a_request_is_changed_in_order() {
        let plugin: Headers = configure(json!({"request": {
            "remove": ["X-Debug", "x-tag"],
            "set": {"X-Team": "blue", "x-count": 3},
            "append": {"x-tag": ["a", "b"], "x-via": "{client-address} {host} {request-id}"},
        }}))
        .unwrap();
        assert_eq!(plugin.hooks(), [Hook::Request]);
        let mut exchange = Exchange::get("https://App.example.com:8443/")
            .header("x-debug", "1")
            .header("x-tag", "old")
            .header("x-team", "red")
            .header("x-team", "green");
        exchange.on_request(&plugin);
        assert_eq!(exchange.request_header("x-debug"), None);
        assert_eq!(exchange.request_values("x-tag"), ["a", "b"]);
        assert_eq!(exchange.request_values("x-team"), ["blue"]);
        assert_eq!(exchange.request_values("x-count"), ["3"]);
        let via = "192.0.2.1 app.example.com 0123456789abcdef";
        assert_eq!(exchange.request_values("x-via"), [via]);
    }

    #[test]
    fn the_preset_gives_way_to_explicit_settings() {
        let plugin: Headers = configure(json!({
            "security": "strict",
            "response": {"set": {"x-frame-options": "SAMEORIGIN"}, "remove": ["referrer-policy"]},
        }))
        .unwrap();
        assert_eq!(plugin.hooks(), [Hook::Response]);
        let head = [("server", "uvicorn"), ("referrer-policy", "origin")];
        let mut exchange = Exchange::get("https://a.example/").response(200, &head);
        exchange.on_response(&plugin);
        assert_eq!(exchange.response_values("x-frame-options"), ["SAMEORIGIN"]);
        assert_eq!(exchange.response_header("referrer-policy"), None);
        assert_eq!(exchange.response_header("server"), None);
        assert_eq!(exchange.response_values("x-content-type-options"), ["nosniff"]);
        let hsts = exchange.response_header("strict-transport-security").unwrap();
        assert_eq!(hsts, "max-age=63072000; includeSubDomains");
    }

    #[test]
    fn plain_http_gets_no_transport_security() {
        let plugin: Headers = configure(json!({"security": "strict"})).unwrap();
        let mut exchange = Exchange::get("http://a.example/").response(200, &[]);
        exchange.on_response(&plugin);
        assert_eq!(exchange.response_header("strict-transport-security"), None);
        assert_eq!(exchange.response_values("x-frame-options"), ["DENY"]);
    }

    #[test]
    fn nothing_configured_changes_nothing() {
        let plugin: Headers = configure(json!(null)).unwrap();
        assert_eq!(plugin.hooks(), [Hook::None]);
    }

    #[test]
    fn errors_name_the_key() {
        for (config, error) in [
            (
                json!({"request": {"set": {"Host": "x"}}}),
                "config.request.set.Host: the gateway owns the field `host`: a plugin cannot \
                 change it",
            ),
            (
                json!({"response": {"set": {"x y": "1"}}}),
                "config.response.set.x y: `x y` is not the name of a header field: use letters, \
                 digits and hyphens",
            ),
            (
                json!({"response": {"append": {"link": ["<a>", "b\n"]}}}),
                "config.response.append.link: a header field's value cannot have line breaks or \
                 control characters",
            ),
            (
                json!({"request": {"set": {"x": "{user}"}}}),
                "config.request.set.x: unknown placeholder `{user}`: there are {request-id}, \
                 {client-address} and {host}; write `{{` for a brace",
            ),
            (
                json!({"request": {"add": {}}}),
                "config.request.add: unknown field `add`, expected one of `remove`, `set`, \
                 `append`",
            ),
            (
                json!({"security": "on"}),
                "config.security: unknown variant `on`, expected `off` or `strict`",
            ),
            (
                json!({"request": {"set": {"x": []}}}),
                "config.request.set.x: invalid type: sequence, expected a text, a number or a \
                 boolean",
            ),
        ] {
            assert_eq!(configure::<Headers>(config).unwrap_err(), error);
        }
    }
}
