//! Solves DNS-01 challenges through the HTTP API of a PowerDNS Authoritative Server.
//!
//! The API replaces whole record sets, so a change is read, merged and written back; the host lets
//! only one call at a time into a zone (`per-zone`). Names have a final dot there, TXT contents are
//! quoted. Source: PowerDNS, "HTTP API", "Zones endpoint".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone, quote_txt, unquote_txt};
use witgate_sdk::http::{self, Request, Response};
use witgate_sdk::{Plugin, debug};

use crate::api::{Patch, Record, ServerError, ZoneEntry, ZoneRecords};

mod api;

witgate_sdk::lean!();
witgate_sdk::export!(PowerDns: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct PowerDns {
    /// `…/api/v1/servers/ID/zones`.
    zones: String,
}

/// `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The server's URL without `/api/v1`.
    api: String,
    #[serde(default = "localhost")]
    server_id: String,
}

fn localhost() -> String {
    "localhost".to_owned()
}

impl Plugin for PowerDns {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let api = config.api.trim_end_matches('/');
        let api = api.strip_suffix("/api/v1").unwrap_or(api);
        if !["http://", "https://"].iter().any(|scheme| api.starts_with(scheme)) {
            return Err(format!(
                "config.api: `{api}` is not a URL: write the address of the PowerDNS web server, \
                 such as http://127.0.0.1:8081"
            ));
        }
        if api.contains(['?', '#', '@', ' ']) {
            return Err("config.api: give scheme, host and port alone; the key is a secret".into());
        }
        Ok(Self {
            zones: format!("{api}/api/v1/servers/{}/zones", http::escape(&config.server_id)),
        })
    }
}

impl DnsSolver for PowerDns {
    fn traits(&self) -> Traits {
        Traits::default().per_zone()
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        for name in candidates {
            let absolute = format!("{name}.");
            let answer = send(Request::get(self.zones.as_str()).query("zone", &absolute))?;
            let entries: Vec<ZoneEntry> = answer.json()?;
            let Some(entry) = entries.into_iter().find(|zone| zone.is_called(&absolute)) else {
                continue;
            };
            if entry.is_secondary() {
                return Err(Failure::new(
                    "forbidden",
                    format!(
                        "the zone {name} is a secondary ({}) on this server, where it cannot be \
                         changed: point `config.api` at its primary",
                        entry.kind
                    ),
                ));
            }
            return Ok(Zone { name: name.clone(), handle: entry.id });
        }
        Err(Failure::zone_not_found(candidates))
    }

    fn present(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        ttl_seconds: u32,
    ) -> Result<String, Failure> {
        let found = self.read(zone, name)?;
        let mut records = found.records.clone();
        for value in values {
            if !records.iter().any(|record| record.holds(value)) {
                // One that an operator has disabled is not served: it is put back in service.
                records.retain(|record| unquote_txt(&record.content) != *value);
                records.push(Record { content: quote_txt(value), disabled: false });
            }
        }
        if records == found.records {
            return Ok(String::new());
        }
        // The TTL belongs to the whole set: what is there keeps its own.
        let ttl = found.ttl.unwrap_or(ttl_seconds);
        self.write(zone, &Patch::replace(name, ttl, &records))?;
        self.notify(zone, found.kind.as_deref());
        Ok(String::new())
    }

    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        let found = self.read(zone, name)?;
        let mut records = found.records;
        let before = records.len();
        records.retain(|record| !values.contains(&unquote_txt(&record.content)));
        if records.len() == before {
            return Ok(());
        }
        let patch = match (records.is_empty(), found.ttl) {
            (false, Some(ttl)) => Patch::replace(name, ttl, &records),
            _ => Patch::delete(name),
        };
        self.write(zone, &patch)?;
        self.notify(zone, found.kind.as_deref());
        Ok(())
    }
}

/// The TXT record set of a name as it is, and the kind of its zone.
struct Found {
    records: Vec<Record>,
    ttl: Option<u32>,
    kind: Option<String>,
}

impl PowerDns {
    fn read(&self, zone: &Zone, name: &str) -> Result<Found, Failure> {
        let absolute = format!("{name}.");
        // Servers before 4.6 do not know the two filters and send the whole zone.
        let request = Request::get(self.zone_url(zone))
            .query("rrset_name", &absolute)
            .query("rrset_type", "TXT");
        let zone: ZoneRecords = send(request)?.json()?;
        let mut sets = zone.rrsets.into_iter();
        let set = sets.find(|set| set.kind == "TXT" && set.name.eq_ignore_ascii_case(&absolute));
        let (records, ttl) = match set {
            Some(set) => (set.records, Some(set.ttl)),
            None => (Vec::new(), None),
        };
        Ok(Found { records, ttl, kind: zone.kind })
    }

    fn write(&self, zone: &Zone, patch: &Patch<'_>) -> Result<(), Failure> {
        send(Request::patch(self.zone_url(zone)).json(patch)).map(drop)
    }

    /// Tells the secondaries of a primary zone at once; without it the server does so within its
    /// `xfr-cycle-interval`. A failure costs time, not the challenge.
    fn notify(&self, zone: &Zone, kind: Option<&str>) {
        if matches!(kind, Some("Master" | "Primary"))
            && let Err(failure) = send(Request::put(format!("{}/notify", self.zone_url(zone))))
        {
            debug!("secondaries of {} were not notified: {}", zone.name, failure.message);
        }
    }

    fn zone_url(&self, zone: &Zone) -> String {
        // The server's own id is ready for a URL; without it the name with its dot is the id.
        match zone.handle.as_str() {
            "" => format!("{}/{}.", self.zones, http::escape(&zone.name)),
            id => format!("{}/{id}", self.zones),
        }
    }
}

/// Sends a request with the key, and turns an answer that is no success into a failure.
fn send(request: Request) -> Result<Response, Failure> {
    let answer = request.secret("x-api-key", "key").send()?;
    if answer.is_success() {
        return Ok(answer);
    }
    let words = match answer.json::<ServerError>() {
        Ok(body) => body.error,
        Err(_) => answer.excerpt(),
    };
    Err(Failure::from_answer(
        &answer,
        match answer.status {
            401 => format!("PowerDNS refused the API key (secret `key`): {words}"),
            404 => {
                format!("PowerDNS knows no such server or zone (check `config.server-id`): {words}")
            }
            status => format!("PowerDNS answered {status}: {words}"),
        },
    ))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod conformance;
