//! Solves DNS-01 challenges through DNSimple.
//!
//! Each value is a record of its own; the zone's handle is the account. Source: DNSimple API v2, "Zone
//! records", "Identity".

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
    DnSimple
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Identity {
    account: Option<Account>,
}

#[derive(Deserialize)]
struct Account {
    id: u64,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    name: String,
    content: String,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    content: &'a str,
    ttl: u32,
}

impl DnsSolver for DnSimple {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(60)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        let answer = send(to(Request::get(format!("{API}/whoami"))), PROVIDER)?;
        let Some(account) = answer.json::<Data<Identity>>()?.data.account else {
            let text = "the token is a user's: DNSimple needs one of an account (secret `token`)";
            return Err(Failure::new("auth", text));
        };
        let account = account.id.to_string();
        first_zone(candidates, |name| {
            let url = format!("{API}/{account}/zones/{}", http::escape(name));
            Ok(send_optional(to(Request::get(url)), PROVIDER)?.map(|_| account.clone()))
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for DnSimple {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let owner = relative(name, &zone.name);
        let request = Request::get(records(zone))
            .query("name", owner)
            .query("type", "TXT")
            .query("per_page", "100");
        let records = send(to(request), PROVIDER)?.json::<Data<Vec<Record>>>()?.data;
        let ours = records.into_iter().filter(|record| record.name == owner);
        Ok(ours.map(|record| Held::new(record.id, record.content)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let name = relative(name, &zone.name);
        let record = NewRecord { name, kind: "TXT", content: value, ttl: ttl_seconds };
        send(to(Request::post(records(zone)).json(&record)), PROVIDER).map(drop)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let url = format!("{}/{}", records(zone), http::escape(&held.id));
        send_optional(to(Request::delete(url)), PROVIDER).map(drop)
    }
}

fn records(zone: &Zone) -> String {
    format!("{API}/{}/zones/{}/records", http::escape(&zone.handle), http::escape(&zone.name))
}

fn to(request: Request) -> Request {
    request.bearer_secret("token").header("accept", "application/json")
}

const API: &str = "https://api.dnsimple.com/v2";
const PROVIDER: &str = "DNSimple";

#[cfg(test)]
mod conformance;
