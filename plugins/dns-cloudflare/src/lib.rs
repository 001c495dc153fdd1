//! Solves DNS-01 challenges through Cloudflare's API (version 4).
//!
//! One record per value, so nothing needs merging; the handle that the host keeps is the list of
//! values with their record ids. Source: Cloudflare API, "List Zones", "DNS Records for a Zone".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone, unquote_txt};
use witgate_sdk::http::{self, Request};

use crate::api::{NewRecord, RecordEntry, Reply, Trouble, ZoneEntry};

mod api;

witgate_sdk::lean!();
witgate_sdk::export!(Cloudflare: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct Cloudflare {
    zone: Option<(String, String)>,
    zone_id: Option<String>,
    zone_secret: String,
}

/// `config:`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The zone's id, for a token that cannot list zones.
    zone_id: Option<String>,
    /// The name of the zone with that id; without it the zone is asked for its name.
    zone: Option<String>,
    /// The name of the secret to find zones with, when it is not `token`.
    zone_secret: Option<String>,
}

/// Record ids by value, as the host keeps them between `present` and `cleanup`.
type Handle = BTreeMap<String, String>;

impl Plugin for Cloudflare {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if let Some(id) = &config.zone_id
            && (id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(format!(
                "config.zone-id: `{id}` is not a zone id: it has 32 hexadecimal digits and is on \
                 the zone's overview page"
            ));
        }
        if config.zone.is_some() && config.zone_id.is_none() {
            return Err("config.zone: only goes with `zone-id`".to_owned());
        }
        let name = config.zone.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        Ok(Self {
            zone: name.zip(config.zone_id.clone()),
            zone_id: config.zone_id,
            zone_secret: config.zone_secret.unwrap_or_else(|| "token".to_owned()),
        })
    }
}

impl DnsSolver for Cloudflare {
    fn traits(&self) -> Traits {
        // 60 is the smallest TTL of plans that are not Enterprise.
        Traits::default().ttl_seconds_min(60)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        if let Some((name, id)) = &self.zone {
            return known_zone(candidates, name, id);
        }
        if let Some(id) = &self.zone_id {
            let request = Request::get(format!("{API}/zones/{id}"));
            let zone: ZoneEntry = self.send_for_zones(request)?;
            return known_zone(candidates, &zone.name, id);
        }
        for name in candidates {
            // `name=` works with tokens that are limited to one zone; listing all zones does not.
            let request = Request::get(format!("{API}/zones")).query("name", name);
            let zones: Vec<ZoneEntry> = self.send_for_zones(request)?;
            if let Some(zone) = zones.into_iter().find(|zone| zone.name == *name) {
                return Ok(Zone { name: zone.name, handle: zone.id });
            }
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
        let mut handle = Handle::new();
        let mut has_found_others = false;
        for value in values {
            let record = NewRecord::new(name, value, ttl_seconds);
            let request = Request::post(records_url(zone)).json(&record);
            match send::<RecordEntry>(request, "token") {
                Ok(record) => {
                    handle.insert(value.clone(), record.id);
                }
                Err(Trouble::Exists) => has_found_others = true,
                Err(Trouble::Failure(failure)) => return Err(failure),
            }
        }
        if has_found_others {
            handle.extend(find(zone, name, values)?);
        }
        Ok(serde_json::to_string(&handle).unwrap_or_default())
    }

    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        handle: &str,
    ) -> Result<(), Failure> {
        // A handle from before a change of this format counts as none.
        let mut ids: Handle = serde_json::from_str(handle).unwrap_or_default();
        ids.retain(|value, _| values.contains(value));
        let lost: Vec<String> =
            values.iter().filter(|value| !ids.contains_key(*value)).cloned().collect();
        if !lost.is_empty() {
            ids.extend(find(zone, name, &lost)?);
        }
        for id in ids.values() {
            let request = Request::delete(format!("{}/{}", records_url(zone), http::escape(id)));
            match send::<serde_json::Value>(request, "token") {
                Ok(_) => {}
                Err(Trouble::Failure(failure)) if failure.code == GONE => {}
                Err(Trouble::Failure(failure)) => return Err(failure),
                Err(Trouble::Exists) => {}
            }
        }
        Ok(())
    }
}

impl Cloudflare {
    fn send_for_zones<T: for<'de> Deserialize<'de>>(&self, request: Request) -> Result<T, Failure> {
        send(request, &self.zone_secret).map_err(Trouble::into_failure)
    }
}

fn known_zone(candidates: &[String], name: &str, id: &str) -> Result<Zone, Failure> {
    if candidates.iter().any(|candidate| candidate == name) {
        return Ok(Zone { name: name.to_owned(), handle: id.to_owned() });
    }
    Err(Failure::new(
        "zone-not-found",
        format!(
            "`config.zone-id` is the zone {name}, which holds none of: {}",
            candidates.join(", ")
        ),
    ))
}

/// The ids of those TXT records of `name` that have one of `values`.
fn find(zone: &Zone, name: &str, values: &[String]) -> Result<Handle, Failure> {
    let request = Request::get(records_url(zone))
        .query("type", "TXT")
        .query("name", name)
        .query("per_page", "100");
    let records: Vec<RecordEntry> = send(request, "token").map_err(Trouble::into_failure)?;
    let found = records.into_iter().filter(|record| record.is_txt_of(name));
    let found = found.map(|record| (unquote_txt(&record.content), record.id));
    Ok(found.filter(|(value, _)| values.contains(value)).collect())
}

fn records_url(zone: &Zone) -> String {
    format!("{API}/zones/{}/dns_records", http::escape(&zone.handle))
}

/// Sends a request with a token, and takes the result out of the envelope.
fn send<T: for<'de> Deserialize<'de>>(request: Request, secret: &str) -> Result<T, Trouble> {
    let answer = request.bearer_secret(secret).send().map_err(Failure::from)?;
    match answer.json::<Reply<T>>() {
        Ok(Reply { success: true, result: Some(result), .. }) if answer.is_success() => Ok(result),
        Ok(reply) => Err(reply.trouble(&answer, secret)),
        Err(error) if answer.is_success() => Err(Failure::from(error).into()),
        // Not from the API itself but from something in front of it.
        Err(_) => {
            let words = format!("Cloudflare answered {}: {}", answer.status, answer.excerpt());
            Err(Failure::from_answer(&answer, words).into())
        }
    }
}

const API: &str = "https://api.cloudflare.com/client/v4";

/// The code, inside this plugin alone, for a record that is not there any more.
const GONE: &str = "gone";

#[cfg(test)]
mod tests;

#[cfg(test)]
mod conformance;
