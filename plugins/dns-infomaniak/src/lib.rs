//! Solves DNS-01 challenges through Infomaniak.
//!
//! Each value is a record of its own. Source: Infomaniak API, "Domain", version 1.

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
    Infomaniak
}

#[derive(Deserialize)]
struct Data<T> {
    data: Vec<T>,
}

#[derive(Deserialize)]
struct Product {
    id: u64,
    customer_name: String,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    target: String,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    target: &'a str,
    ttl: u32,
}

impl DnsSolver for Infomaniak {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(300)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let request = Request::get("https://api.infomaniak.com/1/product")
                .query("service_name", "domain")
                .query("customer_name", name);
            let products = send(to(request), PROVIDER)?.json::<Data<Product>>()?.data;
            let found = products.into_iter().find(|product| product.customer_name == name);
            Ok(found.map(|product| product.id.to_string()))
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Infomaniak {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let owner = owner(name, zone);
        let records = send(to(Request::get(url(zone))), PROVIDER)?.json::<Data<Record>>()?.data;
        let ours = records.into_iter().filter(|it| it.kind == "TXT" && it.source == owner);
        Ok(ours.map(|record| Held::new(record.id, record.target)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let source = owner(name, zone);
        let record = NewRecord { source, kind: "TXT", target: value, ttl: ttl_seconds };
        send(to(Request::post(url(zone)).json(&record)), PROVIDER).map(drop)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let url = format!("{}/{}", url(zone), http::escape(&held.id));
        send_optional(to(Request::delete(url)), PROVIDER).map(drop)
    }
}

fn owner<'n>(name: &'n str, zone: &Zone) -> &'n str {
    relative(name, &zone.name)
}

fn url(zone: &Zone) -> String {
    format!("https://api.infomaniak.com/1/domain/{}/dns/record", http::escape(&zone.handle))
}

fn to(request: Request) -> Request {
    request.bearer_secret("token")
}

const PROVIDER: &str = "Infomaniak";

#[cfg(test)]
mod conformance;
