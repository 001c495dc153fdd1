//! Solves DNS-01 challenges through INWX.
//!
//! Every request goes to one URL and says in its body what it is (JSON-RPC). The gateway logs in. Source:
//! INWX DomRobot API 3, "nameserver".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Held, RecordApi, Traits, Zone, first_zone, send as exchange,
};
use witgate_sdk::http::{Request, token};

witgate_sdk::solver! {
    /// The plugin.
    Inwx
}

#[derive(Serialize)]
struct Call<P> {
    method: &'static str,
    params: P,
}

#[derive(Serialize)]
struct Of<'a> {
    domain: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
}

#[derive(Serialize)]
struct ById {
    id: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: Deserialize<'de>"))]
struct Reply<T> {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default = "Option::default")]
    res_data: Option<T>,
}

#[derive(Deserialize, Default)]
struct Found {
    #[serde(default)]
    record: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    name: String,
    content: String,
}

#[derive(Deserialize)]
struct Nothing {}

impl DnsSolver for Inwx {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(300)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let of = Of { domain: name, kind: "SOA", name: None, content: None, ttl: None };
            match send::<Nothing>("nameserver.info", of) {
                Ok(_) => Ok(Some(String::new())),
                Err(failure) if failure.code == "zone-not-found" => Ok(None),
                Err(failure) => Err(failure),
            }
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Inwx {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let found: Found = send("nameserver.info", of(zone, name))?.unwrap_or_default();
        let ours = found.record.into_iter().filter(|record| record.name == name);
        Ok(ours.map(|record| Held::new(record.id, record.content)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let of = Of { content: Some(value), ttl: Some(ttl_seconds), ..of(zone, name) };
        match send::<Nothing>("nameserver.createRecord", of) {
            Err(failure) if failure.code == EXISTS => Ok(()),
            other => other.map(drop),
        }
    }

    fn remove(&self, _zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let id = held.id.parse().unwrap_or_default();
        match send::<Nothing>("nameserver.deleteRecord", ById { id }) {
            Err(failure) if failure.code == "zone-not-found" => Ok(()),
            other => other.map(drop),
        }
    }
}

fn of<'a>(zone: &'a Zone, name: &'a str) -> Of<'a> {
    Of { domain: &zone.name, kind: "TXT", name: Some(name), content: None, ttl: None }
}

fn send<T: DeserializeOwned>(
    method: &'static str,
    params: impl Serialize,
) -> Result<Option<T>, Failure> {
    let request = Request::post("https://api.domrobot.com/jsonrpc/")
        .json(&Call { method, params })
        .header("cookie", format!("domrobot={}", token("session")));
    let reply: Reply<T> = exchange(request, "INWX")?.json()?;
    let code = match reply.code {
        1000..2000 => return Ok(reply.res_data),
        2200 | 2202 => "auth",
        2201 => "forbidden",
        2302 => EXISTS,
        2303 => "zone-not-found",
        2400..2500 | 2502 => "unavailable",
        _ => "invalid",
    };
    Err(Failure::new(code, format!("INWX answered {}: {}", reply.code, reply.msg)))
}

/// "Object exists".
const EXISTS: &str = "conflict";

#[cfg(test)]
mod conformance;
