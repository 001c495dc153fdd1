//! Solves DNS-01 challenges through netcup.
//!
//! Every request goes to one URL and says in its body what it is. The gateway logs in. Source: netcup
//! CCP API, JSON.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, Held, RecordApi, Traits, Zone, first_zone, owner, send as exchange,
};
use witgate_sdk::http::{Request, secret, token};

witgate_sdk::solver! {
    /// The plugin.
    Netcup
}

#[derive(Serialize)]
struct Call<'a> {
    action: &'static str,
    param: Param<'a>,
}

#[derive(Serialize)]
struct Param<'a> {
    domainname: &'a str,
    customernumber: String,
    apikey: String,
    apisessionid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dnsrecordset: Option<Set<Change<'a>>>,
}

#[derive(Serialize, Deserialize)]
struct Set<T> {
    dnsrecords: Vec<T>,
}

#[derive(Serialize)]
struct Change<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    hostname: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleterecord: Option<bool>,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    hostname: String,
    #[serde(rename = "type")]
    kind: String,
    destination: String,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Reply<T> {
    status: String,
    statuscode: u32,
    #[serde(default)]
    shortmessage: String,
    #[serde(default)]
    longmessage: String,
    /// An empty text where there is none.
    #[serde(default = "Option::default")]
    responsedata: Option<T>,
}

impl DnsSolver for Netcup {
    fn traits(&self) -> Traits {
        Traits::default().per_zone().propagation_seconds_max(900)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        // A domain is what is registered: it has a dot.
        let registered: Vec<String> =
            candidates.iter().filter(|name| name.contains('.')).cloned().collect();
        first_zone(&registered, |name| match send::<serde_json::Value>("infoDnsZone", name, None) {
            Ok(_) => Ok(Some(String::new())),
            Err(failure) if failure.code == "zone-not-found" => Ok(None),
            Err(failure) => Err(failure),
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Netcup {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let owner = owner(name, &zone.name);
        let found: Option<Set<Record>> = send("infoDnsRecords", &zone.name, None)?;
        let records = found.map(|set| set.dnsrecords).unwrap_or_default();
        let ours = records.into_iter().filter(|it| it.kind == "TXT" && it.hostname == owner);
        Ok(ours.map(|record| Held::new(record.id, record.destination)).collect())
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, _ttl_seconds: u32) -> Result<(), Failure> {
        change(zone, name, None, value)
    }

    fn remove(&self, zone: &Zone, name: &str, held: &Held) -> Result<(), Failure> {
        change(zone, name, Some(&held.id), &held.content)
    }
}

/// Adds a record, or removes the one with this id.
fn change(zone: &Zone, name: &str, id: Option<&str>, value: &str) -> Result<(), Failure> {
    let change = Change {
        id,
        hostname: owner(name, &zone.name),
        kind: "TXT",
        destination: value.into(),
        deleterecord: id.map(|_| true),
    };
    let set = Set { dnsrecords: [change].into() };
    send::<serde_json::Value>("updateDnsRecords", &zone.name, Some(set)).map(drop)
}

fn send<T: DeserializeOwned>(
    action: &'static str,
    domainname: &str,
    dnsrecordset: Option<Set<Change<'_>>>,
) -> Result<Option<T>, Failure> {
    let param = Param {
        domainname,
        customernumber: secret("customer"),
        apikey: secret("key"),
        apisessionid: token("session"),
        dnsrecordset,
    };
    let answer = exchange(Request::post(API).json(&Call { action, param }), "netcup")?;
    let reply: Reply<serde_json::Value> = answer.json()?;
    if reply.status == "success" {
        return Ok(reply.responsedata.and_then(|data| serde_json::from_value(data).ok()));
    }
    let code = match reply.statuscode {
        4001 | 4011 => "auth",
        4013 | 5028 | 5029 | 5030 => "zone-not-found",
        4014 => "rate-limited",
        4000..5000 => "invalid",
        _ => "unavailable",
    };
    let words = [reply.shortmessage, reply.longmessage].join(" ");
    Err(Failure::new(code, format!("netcup answered {}: {words}", reply.statuscode)))
}

const API: &str = "https://ccp.netcup.net/run/webservice/servers/endpoint.php?JSON";

#[cfg(test)]
mod conformance;
