//! Solves DNS-01 challenges through DigitalOcean DNS.
//!
//! Each value is a record of its own. Records are found by name and value, never by what was
//! remembered, so that a lost handle costs nothing. Source: DigitalOcean API, "Domains", "Domain
//! Records".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone, owner, send, send_optional, unquote_txt};
use witgate_sdk::http::{self, Request};
use witgate_sdk::{NoKeys, Plugin};

witgate_sdk::lean!();
witgate_sdk::export!(DigitalOcean: dns_solver);

/// The plugin.
#[derive(Debug)]
pub struct DigitalOcean;

impl Plugin for DigitalOcean {
    type Config = NoKeys;

    fn configure(_config: NoKeys) -> Result<Self, String> {
        Ok(Self)
    }
}

#[derive(Deserialize)]
struct Records {
    domain_records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    data: String,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    data: &'a str,
    ttl: u32,
}

impl DnsSolver for DigitalOcean {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(30)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        for name in candidates {
            if send_optional(to(Request::get(domain(name))), PROVIDER)?.is_some() {
                return Ok(Zone { name: name.clone(), handle: String::new() });
            }
        }
        Err(Failure::zone_not_found(candidates))
    }

    fn present(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        ttl_seconds: u32,
    ) -> Result<String, Failure> {
        let there = records(zone, name)?;
        for value in values {
            if there.iter().any(|record| unquote_txt(&record.data) == *value) {
                continue;
            }
            let name = owner(name, &zone.name);
            let record = NewRecord { kind: "TXT", name, data: value, ttl: ttl_seconds };
            let request = Request::post(format!("{}/records", domain(&zone.name))).json(&record);
            send(to(request), PROVIDER)?;
        }
        Ok(String::new())
    }

    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        for record in records(zone, name)? {
            if values.contains(&unquote_txt(&record.data)) {
                let url = format!("{}/records/{}", domain(&zone.name), record.id);
                send_optional(to(Request::delete(url)), PROVIDER)?;
            }
        }
        Ok(())
    }
}

/// The TXT records of a name.
fn records(zone: &Zone, name: &str) -> Result<Vec<Record>, Failure> {
    let request = Request::get(format!("{}/records", domain(&zone.name)))
        .query("type", "TXT")
        .query("name", name)
        .query("per_page", "200");
    let mut records = send(to(request), PROVIDER)?.json::<Records>()?.domain_records;
    let owner = owner(name, &zone.name);
    records.retain(|record| record.kind == "TXT" && record.name == owner);
    Ok(records)
}

fn domain(name: &str) -> String {
    format!("https://api.digitalocean.com/v2/domains/{}", http::escape(name))
}

fn to(request: Request) -> Request {
    request.bearer_secret("token")
}

const PROVIDER: &str = "DigitalOcean";

#[cfg(test)]
mod conformance;
