//! Solves DNS-01 challenges through Google Cloud DNS.
//!
//! A change names the set that goes and the set that comes, so that two at once cannot overwrite each
//! other. The gateway fetches the tokens. Source: Cloud DNS API v1.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, RecordSet, SetApi, Traits, Zone, first_zone, send};
use witgate_sdk::http::{self, Request};

witgate_sdk::lean!();
witgate_sdk::export!(Gcloud: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct Gcloud {
    /// `…/projects/PROJECT/managedZones`.
    zones: String,
}

/// `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The project that holds the zones.
    project: String,
}

impl Plugin for Gcloud {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let project = http::escape(&config.project);
        Ok(Self {
            zones: format!("https://dns.googleapis.com/dns/v1/projects/{project}/managedZones"),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Zones {
    #[serde(default)]
    managed_zones: Vec<ManagedZone>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedZone {
    name: String,
    dns_name: String,
    #[serde(default)]
    visibility: String,
}

#[derive(Deserialize)]
struct Sets {
    #[serde(default)]
    rrsets: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    ttl: u32,
    rrdatas: Vec<String>,
}

#[derive(Serialize)]
struct Change<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    additions: Vec<Set<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deletions: Vec<Set<'a>>,
}

#[derive(Serialize)]
struct Set<'a> {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    ttl: Option<u32>,
    rrdatas: &'a [String],
}

#[derive(Deserialize)]
struct Started {
    id: String,
    status: String,
}

impl DnsSolver for Gcloud {
    fn traits(&self) -> Traits {
        Traits::default().per_zone()
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            let absolute = format!("{name}.");
            let request = Request::get(self.zones.as_str()).query("dnsName", &absolute);
            let zones = send(to(request), PROVIDER)?.json::<Zones>()?.managed_zones;
            let is_it =
                |zone: &ManagedZone| zone.dns_name == absolute && zone.visibility != "private";
            Ok(zones.into_iter().find(is_it).map(|zone| zone.name))
        })
    }

    fn poll(&self, zone: &Zone, handle: &str) -> Result<Option<u32>, Failure> {
        if handle.is_empty() {
            return Ok(None);
        }
        let url = format!("{}/changes/{}", self.zone(zone), http::escape(handle));
        let change: Started = send(to(Request::get(url)), PROVIDER)?.json()?;
        Ok((change.status == "pending").then_some(3))
    }

    witgate_sdk::by_set!();
}

impl SetApi for Gcloud {
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure> {
        let request = Request::get(format!("{}/rrsets", self.zone(zone)))
            .query("name", &format!("{name}."))
            .query("type", "TXT");
        let sets = send(to(request), PROVIDER)?.json::<Sets>()?.rrsets;
        Ok(sets.into_iter().next().map_or_else(RecordSet::default, |set| RecordSet {
            contents: set.rrdatas,
            ttl_seconds: Some(set.ttl),
            ..RecordSet::default()
        }))
    }

    fn write(
        &self,
        zone: &Zone,
        name: &str,
        before: &RecordSet,
        after: &RecordSet,
    ) -> Result<String, Failure> {
        let set = |set| as_set(name, set);
        let change = Change {
            additions: set(after).into_iter().collect(),
            deletions: set(before).into_iter().collect(),
        };
        let request = Request::post(format!("{}/changes", self.zone(zone))).json(&change);
        Ok(send(to(request), PROVIDER)?.json::<Started>()?.id)
    }
}

impl Gcloud {
    fn zone(&self, zone: &Zone) -> String {
        format!("{}/{}", self.zones, http::escape(&zone.handle))
    }
}

fn as_set<'a>(name: &str, set: &'a RecordSet) -> Option<Set<'a>> {
    let (name, rrdatas) = (format!("{name}."), set.contents.as_slice());
    let of = Set { name, kind: "TXT", ttl: set.ttl_seconds, rrdatas };
    (!rrdatas.is_empty()).then_some(of)
}

fn to(request: Request) -> Request {
    request.bearer_token("google")
}

const PROVIDER: &str = "Google Cloud DNS";

#[cfg(test)]
mod conformance;
