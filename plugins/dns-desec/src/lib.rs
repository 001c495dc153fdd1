//! Solves DNS-01 challenges through deSEC.
//!
//! The API replaces whole record sets, so a change is read, merged and written back; the host lets
//! only one call at a time into a zone. Source: deSEC documentation, "Managing Domains",
//! "Retrieving and Manipulating DNS Information".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Traits, Zone, owner, quote_txt, relative, send, send_optional, set_with,
    set_without,
};
use witgate_sdk::http::{self, Request};
use witgate_sdk::{NoKeys, Plugin};

witgate_sdk::lean!();
witgate_sdk::export!(Desec: dns_solver);

/// The plugin.
#[derive(Debug)]
pub struct Desec;

impl Plugin for Desec {
    type Config = NoKeys;

    fn configure(_config: NoKeys) -> Result<Self, String> {
        Ok(Self)
    }
}

#[derive(Deserialize)]
struct Domain {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct RecordSet {
    subname: String,
    #[serde(rename = "type")]
    kind: String,
    ttl: u32,
    records: Vec<String>,
}

impl DnsSolver for Desec {
    fn traits(&self) -> Traits {
        // 3600 is the smallest TTL of an account without special limits.
        Traits::default().per_zone().ttl_seconds_min(3600)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        let Some(name) = candidates.first() else {
            return Err(Failure::zone_not_found(candidates));
        };
        let request = Request::get(format!("{API}/domains/")).query("owns_qname", name);
        let domains: Vec<Domain> = send(to(request), PROVIDER)?.json()?;
        let mut names = domains.into_iter().map(|domain| domain.name);
        match names.find(|name| candidates.contains(name)) {
            Some(name) => Ok(Zone { name, handle: String::new() }),
            None => Err(Failure::zone_not_found(candidates)),
        }
    }

    fn present(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        ttl_seconds: u32,
    ) -> Result<String, Failure> {
        let set = read(zone, name, ttl_seconds)?;
        if let Some(records) = set_with(&set.records, values, quote_txt) {
            write(zone, RecordSet { records, ..set })?;
        }
        Ok(String::new())
    }

    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        let set = read(zone, name, 3600)?;
        match set_without(&set.records, values) {
            Some(records) => write(zone, RecordSet { records, ..set }),
            None => Ok(()),
        }
    }
}

/// The TXT record set of a name; an empty one with `ttl` when there is none.
fn read(zone: &Zone, name: &str, ttl: u32) -> Result<RecordSet, Failure> {
    let subname = relative(name, &zone.name);
    let url = format!("{}{}/TXT/", sets(zone), http::escape(owner(name, &zone.name)));
    match send_optional(to(Request::get(url)), PROVIDER)? {
        Some(answer) => Ok(answer.json()?),
        None => {
            Ok(RecordSet { subname: subname.into(), kind: "TXT".into(), ttl, records: Vec::new() })
        }
    }
}

/// Writes a set; an empty one is removed.
fn write(zone: &Zone, set: RecordSet) -> Result<(), Failure> {
    send(to(Request::put(sets(zone)).json(&[set])), PROVIDER).map(drop)
}

fn sets(zone: &Zone) -> String {
    format!("{API}/domains/{}/rrsets/", http::escape(&zone.name))
}

fn to(request: Request) -> Request {
    request.header("authorization", format!("Token {}", http::secret("token")))
}

const API: &str = "https://desec.io/api/v1";
const PROVIDER: &str = "deSEC";

#[cfg(test)]
mod conformance;
