//! Solves DNS-01 challenges through Gandi LiveDNS.
//!
//! The API takes whole record sets. Source: Gandi LiveDNS API v5, "Records".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, RecordSet, SetApi, Traits, Zone, first_zone, owner, send, send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Gandi
}

#[derive(Deserialize)]
struct Found {
    rrset_values: Vec<String>,
    rrset_ttl: u32,
}

#[derive(Serialize)]
struct Set<'a> {
    rrset_values: &'a [String],
    rrset_ttl: Option<u32>,
}

impl DnsSolver for Gandi {
    fn traits(&self) -> Traits {
        Traits::default().per_zone().ttl_seconds_min(300).propagation_seconds_max(1200)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let answer = send_optional(to(Request::get(domain(name))), PROVIDER)?;
            Ok(answer.map(|_| String::new()))
        })
    }

    witgate_sdk::by_set!();
}

impl SetApi for Gandi {
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure> {
        let Some(answer) = send_optional(to(Request::get(set(zone, name))), PROVIDER)? else {
            return Ok(RecordSet::default());
        };
        let Found { rrset_values, rrset_ttl } = answer.json()?;
        let ttl_seconds = Some(rrset_ttl);
        Ok(RecordSet { contents: rrset_values, ttl_seconds, ..RecordSet::default() })
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
            send_optional(to(Request::delete(url)), PROVIDER)?;
        } else {
            let body = Set { rrset_values: &after.contents, rrset_ttl: after.ttl_seconds };
            send(to(Request::put(url).json(&body)), PROVIDER)?;
        }
        Ok(String::new())
    }
}

fn domain(name: &str) -> String {
    format!("https://api.gandi.net/v5/livedns/domains/{}", http::escape(name))
}

fn set(zone: &Zone, name: &str) -> String {
    format!("{}/records/{}/TXT", domain(&zone.name), http::escape(owner(name, &zone.name)))
}

fn to(request: Request) -> Request {
    request.bearer_secret("token")
}

const PROVIDER: &str = "Gandi";

#[cfg(test)]
mod conformance;
