//! Solves DNS-01 challenges through Duck DNS.
//!
//! A domain there has one TXT value for itself and all names below it, which is set and cleared
//! with a `GET`, and cannot be read. Source: Duck DNS, "HTTP API Specification".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::string::String;
use alloc::{borrow::ToOwned, format};

use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone, send};
use witgate_sdk::http::{Request, secret};

witgate_sdk::solver! {
    /// The plugin.
    DuckDns
}

impl DnsSolver for DuckDns {
    fn traits(&self) -> Traits {
        Traits::default().per_credential().values_per_name_max(1)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        let is_domain = |name: &&String| label(name).is_some_and(|label| !label.contains('.'));
        match candidates.iter().find(is_domain) {
            Some(name) => Ok(Zone { name: name.clone(), handle: String::new() }),
            None => Err(Failure::zone_not_found(candidates)),
        }
    }

    fn present(
        &self,
        zone: &Zone,
        _name: &str,
        values: &[String],
        _ttl_seconds: u32,
    ) -> Result<String, Failure> {
        let [value] = values else {
            return Err(Failure::new("invalid", "Duck DNS holds one TXT value for a domain"));
        };
        update(zone, value, false)?;
        Ok(String::new())
    }

    fn cleanup(
        &self,
        zone: &Zone,
        _name: &str,
        values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        values.iter().try_for_each(|value| update(zone, value, true))
    }
}

fn update(zone: &Zone, value: &str, is_clear: bool) -> Result<(), Failure> {
    let domain = label(&zone.name).unwrap_or(&zone.name);
    let url = format!("https://www.duckdns.org/update?token={}", secret("token"));
    let mut request = Request::get(url).query("domains", domain).query("txt", value);
    if is_clear {
        request = request.query("clear", "true");
    }
    match send(request, "Duck DNS")?.excerpt().as_str() {
        "OK" => Ok(()),
        "KO" => {
            let words = format!("Duck DNS refused the token (secret `token`) for {}", zone.name);
            Err(Failure::new("auth", words))
        }
        other => {
            Err(Failure::new("unavailable", format!("Duck DNS answered {}", other.to_owned())))
        }
    }
}

/// What stands before `.duckdns.org`.
fn label(name: &str) -> Option<&str> {
    name.strip_suffix(".duckdns.org")
}

#[cfg(test)]
mod conformance;
