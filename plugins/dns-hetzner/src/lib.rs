//! Solves DNS-01 challenges through the DNS of the Hetzner Cloud API (not the older DNS Console).
//!
//! Values are added to and removed from a record set one by one, so nothing of others is rewritten;
//! a change is an action that runs for a while. Source: Hetzner Cloud API, "Zones", "Zone RRSets".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Traits, Zone, first_zone, owner, quote_txt, send, send_optional,
    unquote_txt,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Hetzner
}

#[derive(Deserialize)]
struct Found {
    rrset: RecordSet,
}

#[derive(Deserialize)]
struct RecordSet {
    records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    value: String,
}

#[derive(Serialize)]
struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Started {
    action: Action,
}

#[derive(Deserialize)]
struct Action {
    id: u64,
    status: String,
    #[serde(default)]
    error: Option<ActionError>,
}

#[derive(Deserialize)]
struct ActionError {
    message: String,
}

impl DnsSolver for Hetzner {
    fn traits(&self) -> Traits {
        // A zone refuses a change while another one runs.
        Traits::default().per_zone().ttl_seconds_min(60)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let url = format!("{API}/zones/{}", http::escape(name));
            Ok(send_optional(to(Request::get(url)), PROVIDER)?.map(|_| String::new()))
        })
    }

    fn present(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        ttl_seconds: u32,
    ) -> Result<String, Failure> {
        let there = read(zone, name)?;
        // The TTL belongs to the whole set: one that is there keeps its own.
        let ttl = there.is_none().then_some(ttl_seconds);
        let there = there.unwrap_or_default();
        let missing = values.iter().filter(|value| !there.contains(value));
        change(zone, name, "add_records", ttl, missing.map(|value| quote_txt(value)).collect())
    }

    fn poll(&self, _zone: &Zone, handle: &str) -> Result<Option<u32>, Failure> {
        if handle.is_empty() {
            return Ok(None);
        }
        let url = format!("{API}/actions/{}", http::escape(handle));
        let action = send(to(Request::get(url)), PROVIDER)?.json::<Started>()?.action;
        match action.status.as_str() {
            "running" => Ok(Some(2)),
            "error" => {
                let words = action.error.map(|error| error.message).unwrap_or_default();
                Err(Failure::new("unavailable", format!("Hetzner did not make it: {words}")))
            }
            _ => Ok(None),
        }
    }

    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        let there = read(zone, name)?.unwrap_or_default();
        let present = values.iter().filter(|value| there.contains(value));
        let present = present.map(|value| quote_txt(value)).collect();
        change(zone, name, "remove_records", None, present).map(drop)
    }
}

/// Adds or removes values; the id of the action, empty when there is nothing to do.
fn change(
    zone: &Zone,
    name: &str,
    action: &str,
    ttl: Option<u32>,
    values: Vec<String>,
) -> Result<String, Failure> {
    if values.is_empty() {
        return Ok(String::new());
    }
    let records = values.into_iter().map(|value| Record { value }).collect();
    let url = format!("{}/actions/{action}", set_url(zone, name));
    let request = Request::post(url).json(&Change { ttl, records });
    let started: Started = send(to(request), PROVIDER)?.json()?;
    Ok(started.action.id.to_string())
}

/// The values of a name's TXT record set; none when there is no such set.
fn read(zone: &Zone, name: &str) -> Result<Option<Vec<String>>, Failure> {
    let Some(answer) = send_optional(to(Request::get(set_url(zone, name))), PROVIDER)? else {
        return Ok(None);
    };
    let records = answer.json::<Found>()?.rrset.records;
    Ok(Some(records.iter().map(|record| unquote_txt(&record.value)).collect()))
}

fn set_url(zone: &Zone, name: &str) -> String {
    let owner = owner(name, &zone.name);
    format!("{API}/zones/{}/rrsets/{}/TXT", http::escape(&zone.name), http::escape(owner))
}

fn to(request: Request) -> Request {
    request.bearer_secret("token")
}

const API: &str = "https://api.hetzner.cloud/v1";
const PROVIDER: &str = "Hetzner";

#[cfg(test)]
mod conformance;
