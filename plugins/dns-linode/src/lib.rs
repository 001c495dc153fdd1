//! Solves DNS-01 challenges through Linode (Akamai Cloud) DNS.
//!
//! Each value is a record of its own; a zone's records come in pages and cannot be filtered. Source:
//! Linode API v4, "Domains".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Held, RecordApi, Traits, Zone, first_zone, relative, send, send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Linode
}

#[derive(Deserialize)]
struct Domains {
    data: Vec<Domain>,
}

#[derive(Deserialize)]
struct Domain {
    id: u64,
    domain: String,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Record>,
    pages: u32,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    target: String,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    target: &'a str,
    ttl_sec: u32,
}

impl DnsSolver for Linode {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(300).propagation_seconds_max(900)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let filter = format!("{{\"domain\": \"{name}\"}}");
            let request = Request::get(format!("{API}/domains")).header("x-filter", filter);
            let domains = send(to(request), PROVIDER)?.json::<Domains>()?.data;
            let found = domains.into_iter().find(|domain| domain.domain == name);
            Ok(found.map(|domain| domain.id.to_string()))
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Linode {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let owner = relative(name, &zone.name);
        let mut held = Vec::new();
        for page in 1..=PAGES_MAX {
            let request = Request::get(records(zone))
                .query("page", &page.to_string())
                .query("page_size", "500");
            let Page { data, pages } = send(to(request), PROVIDER)?.json()?;
            let ours = data.into_iter().filter(|it| it.kind == "TXT" && it.name == owner);
            held.extend(ours.map(|record| Held::new(record.id, record.target)));
            if page >= pages {
                break;
            }
        }
        Ok(held)
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let name = relative(name, &zone.name);
        let record = NewRecord { kind: "TXT", name, target: value, ttl_sec: ttl_seconds };
        send(to(Request::post(records(zone)).json(&record)), PROVIDER).map(drop)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let url = format!("{}/{}", records(zone), http::escape(&held.id));
        send_optional(to(Request::delete(url)), PROVIDER).map(drop)
    }
}

fn records(zone: &Zone) -> String {
    format!("{API}/domains/{}/records", http::escape(&zone.handle))
}

fn to(request: Request) -> Request {
    request.bearer_secret("token")
}

const API: &str = "https://api.linode.com/v4";
const PROVIDER: &str = "Linode";
/// Pages of 500 records, inclusive.
const PAGES_MAX: u32 = 10;

#[cfg(test)]
mod conformance;
