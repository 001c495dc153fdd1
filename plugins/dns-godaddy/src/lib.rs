//! Solves DNS-01 challenges through GoDaddy.
//!
//! The API takes whole record sets. A domain is known by its records, since asking for the domain itself
//! is refused to small accounts. Source: GoDaddy Domains API v1.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{DnsSolver, Failure, RecordSet, SetApi, Traits, Zone, first_zone, owner};
use witgate_sdk::http::{self, Request, Response};

witgate_sdk::solver! {
    /// The plugin.
    GoDaddy
}

#[derive(Serialize, Deserialize)]
struct Record {
    data: String,
    ttl: u32,
}

#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    code: String,
}

impl DnsSolver for GoDaddy {
    fn traits(&self) -> Traits {
        Traits::default().per_zone().ttl_seconds_min(600)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        // A domain is what is registered: it has a dot.
        let registered: Vec<String> =
            candidates.iter().filter(|name| name.contains('.')).cloned().collect();
        first_zone(&registered, |name| {
            let url = format!("{API}/{}/records/NS", http::escape(name));
            match send(Request::get(url)) {
                Ok(_) => Ok(Some(String::new())),
                Err(failure) if failure.code == "zone-not-found" => Ok(None),
                Err(failure) => Err(failure),
            }
        })
    }

    witgate_sdk::by_set!();
}

impl SetApi for GoDaddy {
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure> {
        let records: Vec<Record> = send(Request::get(set(zone, name)))?.json()?;
        let ttl_seconds = records.first().map(|record| record.ttl);
        let contents = records.into_iter().map(|record| record.data).collect();
        Ok(RecordSet { contents, ttl_seconds, ..RecordSet::default() })
    }

    fn write(
        &self,
        zone: &Zone,
        name: &str,
        _before: &RecordSet,
        after: &RecordSet,
    ) -> Result<String, Failure> {
        let url = set(zone, name);
        if after.contents.is_empty() {
            send(Request::delete(url))?;
            return Ok(String::new());
        }
        let ttl = after.ttl_seconds.unwrap_or(600);
        let record = |data: &String| Record { data: data.clone(), ttl };
        let records: Vec<Record> = after.contents.iter().map(record).collect();
        send(Request::put(url).json(&records))?;
        Ok(String::new())
    }

    fn content(value: &str) -> String {
        value.into()
    }
}

fn set(zone: &Zone, name: &str) -> String {
    let owner = http::escape(owner(name, &zone.name));
    format!("{API}/{}/records/TXT/{owner}", http::escape(&zone.name))
}

fn send(request: Request) -> Result<Response, Failure> {
    let key = format!("sso-key {}:{}", http::secret("key"), http::secret("secret"));
    let answer = request.header("authorization", key).send()?;
    if answer.is_success() {
        return Ok(answer);
    }
    let mut failure = Failure::refused("GoDaddy", &answer);
    let code = answer.json::<Refusal>().unwrap_or_default().code;
    match code.as_str() {
        "UNKNOWN_DOMAIN" | "NOT_FOUND" | "INVALID_DOMAIN" => failure.code = "zone-not-found",
        "ACCESS_DENIED" => failure.code = "account-not-entitled",
        "UNABLE_TO_AUTHENTICATE" | "INVALID_API_KEY" => failure.code = "auth",
        _ => {}
    }
    Err(failure)
}

const API: &str = "https://api.godaddy.com/v1/domains";

#[cfg(test)]
mod conformance;
