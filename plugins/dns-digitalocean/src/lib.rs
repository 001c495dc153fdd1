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
use witgate_sdk::dns::{
    DnsSolver, Failure, Held, RecordApi, Traits, Zone, first_zone, owner, send, send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    DigitalOcean
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
        first_zone(candidates, |name| {
            let answer = send_optional(to(Request::get(domain(name))), PROVIDER)?;
            Ok(answer.map(|_| String::new()))
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for DigitalOcean {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let request = Request::get(format!("{}/records", domain(&zone.name)))
            .query("type", "TXT")
            .query("name", name)
            .query("per_page", "200");
        let records = send(to(request), PROVIDER)?.json::<Records>()?.domain_records;
        let owner = owner(name, &zone.name);
        let ours = records.into_iter().filter(|it| it.kind == "TXT" && it.name == owner);
        Ok(ours.map(|record| Held::new(record.id, record.data)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let name = owner(name, &zone.name);
        let record = NewRecord { kind: "TXT", name, data: value, ttl: ttl_seconds };
        let request = Request::post(format!("{}/records", domain(&zone.name))).json(&record);
        send(to(request), PROVIDER).map(drop)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let url = format!("{}/records/{}", domain(&zone.name), held.id);
        send_optional(to(Request::delete(url)), PROVIDER).map(drop)
    }
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
