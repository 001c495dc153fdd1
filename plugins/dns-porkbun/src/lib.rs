//! Solves DNS-01 challenges through Porkbun.
//!
//! Each value is a record of its own, found by name and value. Every request is a `POST` with both
//! keys in its body. Source: Porkbun API v3, "DNS".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{DnsSolver, Failure, Held, RecordApi, Traits, Zone, relative};
use witgate_sdk::http::{self, Request, Response};

witgate_sdk::solver! {
    /// The plugin.
    Porkbun
}

/// Every body: the keys, and a record where one is created.
#[derive(Serialize)]
struct Body<'a> {
    apikey: String,
    secretapikey: String,
    #[serde(flatten)]
    record: Option<NewRecord<'a>>,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    content: &'a str,
    ttl: String,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Records {
    #[serde(default)]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    content: String,
}

impl DnsSolver for Porkbun {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(600).propagation_seconds_max(600)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        // A domain is what is registered: it has a dot.
        for name in candidates.iter().filter(|name| name.contains('.')) {
            match send(&format!("retrieveByNameType/{}/NS", http::escape(name)), None) {
                Ok(_) => return Ok(Zone { name: name.clone(), handle: String::new() }),
                Err(failure) if failure.code == "zone-not-found" => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::zone_not_found(candidates))
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Porkbun {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let mut path = format!("retrieveByNameType/{}/TXT", http::escape(&zone.name));
        let owner = relative(name, &zone.name);
        if !owner.is_empty() {
            path.push('/');
            path.push_str(&http::escape(owner));
        }
        let records = send(&path, None)?.json::<Records>()?.records;
        Ok(records.into_iter().map(|record| Held::new(record.id, record.content)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let name = relative(name, &zone.name);
        let record = NewRecord { name, kind: "TXT", content: value, ttl: ttl_seconds.to_string() };
        send(&format!("create/{}", http::escape(&zone.name)), Some(record)).map(drop)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let (zone, id) = (http::escape(&zone.name), http::escape(&held.id));
        send(&format!("delete/{zone}/{id}"), None).map(drop)
    }
}

fn send(path: &str, record: Option<NewRecord<'_>>) -> Result<Response, Failure> {
    let (apikey, secretapikey) = (http::secret("key"), http::secret("secret"));
    let body = Body { apikey, secretapikey, record };
    let answer = Request::post(format!("{API}/{path}")).json(&body).send()?;
    let refusal = answer.json::<Refusal>();
    if answer.is_success() && refusal.as_ref().is_ok_and(|body| body.status == "SUCCESS") {
        return Ok(answer);
    }
    let mut failure = Failure::refused("Porkbun", &answer);
    if let Ok(body) = refusal {
        // The status is 400 for most of what can go wrong, and only the words tell.
        let words = body.message.to_ascii_lowercase();
        failure.message = format!("Porkbun answered {}: {}", answer.status, body.message);
        let code = match words.as_str() {
            words if words.contains("api key") => Some("auth"),
            words if words.contains("opted in") => Some("account-not-entitled"),
            words if words.contains("invalid domain") => Some("zone-not-found"),
            _ => None,
        };
        failure.code = code.unwrap_or(failure.code);
    }
    Err(failure)
}

const API: &str = "https://api.porkbun.com/api/json/v3/dns";

#[cfg(test)]
mod conformance;
