//! Solves DNS-01 challenges by asking an HTTP service of your own.
//!
//! The service gets `POST …/present` and `POST …/cleanup` with `fqdn` and `value`, one value at a
//! time; this is the contract that lego calls `httpreq`. Source: lego, "HTTP request".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone, send, send_optional};
use witgate_sdk::http::Request;

witgate_sdk::lean!();
witgate_sdk::export!(HttpReq: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct HttpReq {
    endpoint: String,
    user: Option<String>,
    zones: Vec<String>,
}

/// `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The service's URL.
    endpoint: String,
    /// The user of its Basic credentials; the password is the secret `password`.
    #[serde(default)]
    user: Option<String>,
    /// The zones it can write to; without any, every name.
    #[serde(default)]
    zones: Vec<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    fqdn: String,
    value: &'a str,
}

impl Plugin for HttpReq {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let endpoint = config.endpoint.trim_end_matches('/');
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(format!("config.endpoint: `{endpoint}` is not a URL"));
        }
        let lower = |zone: &String| zone.trim_end_matches('.').to_ascii_lowercase();
        Ok(Self {
            endpoint: endpoint.into(),
            user: config.user,
            zones: config.zones.iter().map(lower).collect(),
        })
    }
}

impl DnsSolver for HttpReq {
    fn traits(&self) -> Traits {
        // The service may be a script that rewrites a file.
        Traits::default().per_credential()
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        let is_known = |name: &&String| self.zones.is_empty() || self.zones.contains(*name);
        match candidates.iter().find(is_known) {
            Some(name) => Ok(Zone { name: name.clone(), handle: String::new() }),
            None => Err(Failure::zone_not_found(candidates)),
        }
    }

    fn present(
        &self,
        _zone: &Zone,
        name: &str,
        values: &[String],
        _ttl_seconds: u32,
    ) -> Result<String, Failure> {
        for value in values {
            send(self.request("present", name, value), "the service")?;
        }
        Ok(String::new())
    }

    fn cleanup(
        &self,
        _zone: &Zone,
        name: &str,
        values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        for value in values {
            send_optional(self.request("cleanup", name, value), "the service")?;
        }
        Ok(())
    }
}

impl HttpReq {
    fn request(&self, what: &str, name: &str, value: &str) -> Request {
        let body = Body { fqdn: format!("{name}."), value };
        let request = Request::post(format!("{}/{what}", self.endpoint)).json(&body);
        match &self.user {
            Some(user) => request.basic_secret(user, "password"),
            None => request,
        }
    }
}

#[cfg(test)]
mod conformance;
