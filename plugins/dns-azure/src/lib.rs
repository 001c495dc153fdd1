//! Solves DNS-01 challenges through Azure DNS.
//!
//! The API takes whole record sets, and refuses to overwrite one that is not any more what was read
//! (`ETag`). The gateway fetches the tokens. Source: Azure DNS REST API 2018-05-01.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::Plugin;
use witgate_sdk::dns::{
    DnsSolver, Failure, RecordSet, SetApi, Traits, Zone, first_zone, owner, send, send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::lean!();
witgate_sdk::export!(Azure: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct Azure {
    /// `…/dnsZones`.
    zones: String,
}

/// `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Used by the gateway alone, which logs in.
    #[serde(rename = "tenant")]
    _tenant: String,
    subscription: String,
    resource_group: String,
}

impl Plugin for Azure {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let group = http::escape(&config.resource_group);
        let subscription = http::escape(&config.subscription);
        Ok(Self {
            zones: format!(
                "https://management.azure.com/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/dnsZones"
            ),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Set {
    #[serde(default, skip_serializing)]
    etag: String,
    properties: Properties,
}

#[derive(Serialize, Deserialize)]
struct Properties {
    #[serde(rename = "TTL")]
    ttl: u32,
    #[serde(rename = "TXTRecords", default)]
    records: Vec<Record>,
}

/// A value, in pieces of up to 255 bytes.
#[derive(Serialize, Deserialize)]
struct Record {
    value: Vec<String>,
}

impl DnsSolver for Azure {
    fn traits(&self) -> Traits {
        Traits::default().per_zone()
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let request = Request::get(format!("{}/{}", self.zones, http::escape(name)));
            Ok(send_optional(to(request), PROVIDER)?.map(|_| String::new()))
        })
    }

    witgate_sdk::by_set!();
}

impl SetApi for Azure {
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure> {
        let Some(answer) = send_optional(to(Request::get(self.set(zone, name))), PROVIDER)? else {
            return Ok(RecordSet::default());
        };
        let Set { etag, properties } = answer.json()?;
        let contents = properties.records.into_iter().map(|record| record.value.concat());
        let ttl_seconds = Some(properties.ttl);
        Ok(RecordSet { contents: contents.collect(), ttl_seconds, tag: etag })
    }

    fn write(
        &self,
        zone: &Zone,
        name: &str,
        before: &RecordSet,
        after: &RecordSet,
    ) -> Result<String, Failure> {
        let url = self.set(zone, name);
        let unchanged = |request: Request| match before.tag.as_str() {
            "" => request.header("if-none-match", "*"),
            tag => request.header("if-match", tag),
        };
        if after.contents.is_empty() {
            send_optional(to(unchanged(Request::delete(url))), PROVIDER)?;
            return Ok(String::new());
        }
        let records = after.contents.iter().map(|text| Record { value: pieces(text) }).collect();
        let ttl = after.ttl_seconds.unwrap_or(60);
        let body = Set { etag: String::new(), properties: Properties { ttl, records } };
        send(to(unchanged(Request::put(url).json(&body))), PROVIDER)?;
        Ok(String::new())
    }

    fn content(value: &str) -> String {
        value.into()
    }
}

impl Azure {
    fn set(&self, zone: &Zone, name: &str) -> String {
        let (zone, owner) = (http::escape(&zone.name), http::escape(owner(name, &zone.name)));
        format!("{}/{zone}/TXT/{owner}", self.zones)
    }
}

fn pieces(text: &str) -> Vec<String> {
    let pieces = text.as_bytes().chunks(255);
    pieces.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
}

fn to(request: Request) -> Request {
    request.query("api-version", "2018-05-01").bearer_token("azure")
}

const PROVIDER: &str = "Azure DNS";

#[cfg(test)]
mod conformance;
