//! Solves DNS-01 challenges through IONOS DNS.
//!
//! Each value is a record of its own. Source: IONOS Developer, "DNS API" v1.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Held, RecordApi, Traits, Zone, listed_zone, send, send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Ionos
}

#[derive(Deserialize)]
struct ZoneEntry {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    content: String,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    content: &'a str,
    ttl: u32,
    prio: u32,
    disabled: bool,
}

impl DnsSolver for Ionos {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(300).propagation_seconds_max(900)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        let zones: Vec<ZoneEntry> =
            send(to(Request::get(format!("{API}/zones"))), PROVIDER)?.json()?;
        listed_zone(candidates, zones.into_iter().map(|zone| (zone.name, zone.id)))
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Ionos {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let request = Request::get(url(zone)).query("recordName", name).query("recordType", "TXT");
        let records = send(to(request), PROVIDER)?.json::<Found>()?.records;
        let ours = records.into_iter().filter(|it| it.kind == "TXT" && it.name == name);
        Ok(ours.map(|record| Held::new(record.id, record.content)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let record = NewRecord {
            name,
            kind: "TXT",
            content: value,
            ttl: ttl_seconds,
            prio: 0,
            disabled: false,
        };
        let request = Request::post(format!("{}/records", url(zone))).json(&[record]);
        send(to(request), PROVIDER).map(drop)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let url = format!("{}/records/{}", url(zone), http::escape(&held.id));
        send_optional(to(Request::delete(url)), PROVIDER).map(drop)
    }
}

fn url(zone: &Zone) -> String {
    format!("{API}/zones/{}", http::escape(&zone.handle))
}

fn to(request: Request) -> Request {
    request.secret("x-api-key", "key")
}

const API: &str = "https://api.hosting.ionos.com/dns/v1";
const PROVIDER: &str = "IONOS";

#[cfg(test)]
mod conformance;
