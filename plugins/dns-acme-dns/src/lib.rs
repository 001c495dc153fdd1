//! Solves DNS-01 challenges through an acme-dns server.
//!
//! The challenge name is a CNAME to a name at that server, which has a user and a key of its own
//! and keeps the last two values. There is no way to read or to remove one. Source: acme-dns,
//! "API".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use serde::{Deserialize, Serialize};
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone, send};
use witgate_sdk::http::Request;

witgate_sdk::lean!();
witgate_sdk::export!(AcmeDns: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct AcmeDns {
    update: String,
    registrations: BTreeMap<String, Registration>,
}

/// `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The server's URL.
    api: String,
    /// What `register` answered, by `fulldomain`.
    registrations: BTreeMap<String, Registration>,
}

/// The names of the secrets of one registration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Registration {
    user: String,
    key: String,
}

impl Default for Registration {
    fn default() -> Self {
        Self { user: "user".into(), key: "key".into() }
    }
}

#[derive(Serialize)]
struct Update<'a> {
    subdomain: &'a str,
    txt: &'a str,
}

impl Plugin for AcmeDns {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let api = config.api.trim_end_matches('/');
        if !api.starts_with("https://") && !api.starts_with("http://") {
            return Err(format!(
                "config.api: `{api}` is not a URL, such as https://auth.example.org"
            ));
        }
        if config.registrations.is_empty() {
            return Err("config.registrations: there is none; register at the server first".into());
        }
        let lower = |name: String| name.trim_end_matches('.').to_ascii_lowercase();
        let registrations = config.registrations.into_iter();
        Ok(Self {
            update: format!("{api}/update"),
            registrations: registrations.map(|(name, of)| (lower(name), of)).collect(),
        })
    }
}

impl DnsSolver for AcmeDns {
    fn traits(&self) -> Traits {
        Traits::default().per_credential().values_per_name_max(2)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        match candidates.first().filter(|name| self.registrations.contains_key(*name)) {
            Some(name) => Ok(Zone { name: name.clone(), handle: String::new() }),
            None => {
                let name = candidates.first().map(String::as_str).unwrap_or_default();
                Err(Failure::new(
                    "zone-not-found",
                    format!(
                        "{name} is none of `config.registrations`: make the challenge name a CNAME \
                         of the `fulldomain` that acme-dns gave, and name that there"
                    ),
                ))
            }
        }
    }

    fn present(
        &self,
        _zone: &Zone,
        name: &str,
        values: &[String],
        _ttl_seconds: u32,
    ) -> Result<String, Failure> {
        let Some(registration) = self.registrations.get(name) else {
            return Err(Failure::new("zone-not-found", format!("{name} is not registered")));
        };
        let subdomain = name.split('.').next().unwrap_or_default();
        for value in values {
            let request = Request::post(self.update.as_str())
                .secret("x-api-user", &registration.user)
                .secret("x-api-key", &registration.key)
                .json(&Update { subdomain, txt: value });
            send(request, "acme-dns")?;
        }
        Ok(String::new())
    }

    /// The server forgets a value when two newer ones have come.
    fn cleanup(
        &self,
        _zone: &Zone,
        _name: &str,
        _values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod conformance;
