//! Solves DNS-01 challenges through Scaleway Domains and DNS.
//!
//! Values are added to and removed from a record set one by one. Source: Scaleway "Domains and DNS API"
//! v2beta1.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Held, RecordApi, Traits, Zone, first_zone, quote_txt, relative, send,
    unquote_txt,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Scaleway
}

#[derive(Deserialize)]
struct Zones {
    dns_zones: Vec<DnsZone>,
}

#[derive(Deserialize)]
struct DnsZone {
    domain: String,
    #[serde(default)]
    subdomain: String,
}

#[derive(Deserialize)]
struct Records {
    records: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    id: String,
    name: String,
    data: String,
}

#[derive(Serialize)]
struct Changes<'a> {
    changes: [Change<'a>; 1],
    return_all_records: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Change<'a> {
    Add { records: [Record<'a>; 1] },
    Delete { id_fields: Record<'a> },
}

#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
}

impl DnsSolver for Scaleway {
    fn traits(&self) -> Traits {
        Traits::default().per_zone().ttl_seconds_min(60)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let request = Request::get(API).query("dns_zone", name);
            let zones = send(to(request), PROVIDER)?.json::<Zones>()?.dns_zones;
            let is_it = |zone: &DnsZone| match zone.subdomain.as_str() {
                "" => zone.domain == name,
                subdomain => format!("{subdomain}.{}", zone.domain) == name,
            };
            Ok(zones.iter().any(is_it).then(String::new))
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Scaleway {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let owner = relative(name, &zone.name);
        let request = Request::get(url(zone))
            .query("name", owner)
            .query("type", "TXT")
            .query("page_size", "100");
        let records = send(to(request), PROVIDER)?.json::<Records>()?.records;
        let ours = records.into_iter().filter(|record| record.name == owner);
        Ok(ours.map(|record| Held::new(record.id, record.data)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let record = record(zone, name, value, Some(ttl_seconds));
        change(zone, Change::Add { records: [record] })
    }

    fn remove(&self, zone: &Zone, name: &str, held: &Held) -> Result<(), Failure> {
        let id_fields = record(zone, name, &unquote_txt(&held.content), None);
        change(zone, Change::Delete { id_fields })
    }
}

fn record<'a>(zone: &Zone, name: &'a str, value: &str, ttl: Option<u32>) -> Record<'a> {
    Record { name: relative(name, &zone.name), kind: "TXT", data: quote_txt(value), ttl }
}

fn change(zone: &Zone, change: Change<'_>) -> Result<(), Failure> {
    let body = Changes { changes: [change], return_all_records: false };
    send(to(Request::patch(url(zone)).json(&body)), PROVIDER).map(drop)
}

fn url(zone: &Zone) -> String {
    format!("{API}/{}/records", http::escape(&zone.name))
}

fn to(request: Request) -> Request {
    request.secret("x-auth-token", "key")
}

const API: &str = "https://api.scaleway.com/domain/v2beta1/dns-zones";
const PROVIDER: &str = "Scaleway";

#[cfg(test)]
mod conformance;
