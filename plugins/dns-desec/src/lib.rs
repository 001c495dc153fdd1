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
    DnsSolver, Failure, RecordSet, SetApi, Traits, Zone, owner, relative, send, send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Desec
}

#[derive(Deserialize)]
struct Domain {
    name: String,
}

#[derive(Deserialize)]
struct Found {
    ttl: u32,
    records: Vec<String>,
}

#[derive(Serialize)]
struct Set<'a> {
    subname: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    ttl: Option<u32>,
    records: &'a [String],
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

    witgate_sdk::by_set!();
}

impl SetApi for Desec {
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure> {
        let url = format!("{}{}/TXT/", sets(zone), http::escape(owner(name, &zone.name)));
        let Some(answer) = send_optional(to(Request::get(url)), PROVIDER)? else {
            return Ok(RecordSet::default());
        };
        let Found { ttl, records } = answer.json()?;
        Ok(RecordSet { contents: records, ttl_seconds: Some(ttl), ..RecordSet::default() })
    }

    /// An empty set is removed.
    fn write(
        &self,
        zone: &Zone,
        name: &str,
        _before: &RecordSet,
        after: &RecordSet,
    ) -> Result<String, Failure> {
        let set = Set {
            subname: relative(name, &zone.name),
            kind: "TXT",
            ttl: after.ttl_seconds,
            records: &after.contents,
        };
        send(to(Request::put(sets(zone)).json(&[set])), PROVIDER)?;
        Ok(String::new())
    }
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
