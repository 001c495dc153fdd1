//! Solves DNS-01 challenges through Vultr DNS.
//!
//! Each value is a record of its own; a zone's records come in pages. Source: Vultr API v2, "DNS".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Held, RecordApi, Traits, Zone, first_zone, quote_txt, relative, send,
    send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Vultr
}

#[derive(Deserialize)]
struct Page {
    records: Vec<Record>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default)]
    links: Links,
}

#[derive(Deserialize, Default)]
struct Links {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    data: String,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    data: String,
    ttl: u32,
}

impl DnsSolver for Vultr {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(120)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let answer = send_optional(to(Request::get(domain(name))), PROVIDER)?;
            Ok(answer.map(|_| String::new()))
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Vultr {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let owner = relative(name, &zone.name);
        let (mut held, mut cursor) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let mut request = Request::get(records(zone)).query("per_page", "500");
            if !cursor.is_empty() {
                request = request.query("cursor", &cursor);
            }
            let page: Page = send(to(request), PROVIDER)?.json()?;
            let ours = page.records.into_iter().filter(|it| it.kind == "TXT" && it.name == owner);
            held.extend(ours.map(|record| Held::new(record.id, record.data)));
            cursor = page.meta.links.next;
            if cursor.is_empty() {
                break;
            }
        }
        Ok(held)
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let name = relative(name, &zone.name);
        let record = NewRecord { kind: "TXT", name, data: quote_txt(value), ttl: ttl_seconds };
        send(to(Request::post(records(zone)).json(&record)), PROVIDER).map(drop)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let url = format!("{}/{}", records(zone), http::escape(&held.id));
        send_optional(to(Request::delete(url)), PROVIDER).map(drop)
    }
}

fn domain(name: &str) -> String {
    format!("https://api.vultr.com/v2/domains/{}", http::escape(name))
}

fn records(zone: &Zone) -> String {
    format!("{}/records", domain(&zone.name))
}

fn to(request: Request) -> Request {
    request.bearer_secret("token")
}

const PROVIDER: &str = "Vultr";
/// Pages of 500 records, inclusive.
const PAGES_MAX: usize = 10;

#[cfg(test)]
mod conformance;
