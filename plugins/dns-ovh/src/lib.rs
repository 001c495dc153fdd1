//! Solves DNS-01 challenges through OVHcloud.
//!
//! Each value is a record of its own; changes are served after a `refresh` of the zone. The gateway signs.
//! Source: OVHcloud API console, `/domain/zone`.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, Held, RecordApi, Traits, Zone, first_zone, relative};
use witgate_sdk::http::{self, Request, Response};

witgate_sdk::lean!();
witgate_sdk::export!(Ovh: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct Ovh {
    api: &'static str,
}

/// `config:`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    endpoint: Option<String>,
}

impl Plugin for Ovh {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let api = match config.endpoint.as_deref() {
            None | Some("ovh-eu") => "https://eu.api.ovh.com/1.0/domain/zone",
            Some("ovh-ca") => "https://ca.api.ovh.com/1.0/domain/zone",
            Some("ovh-us") => "https://api.us.ovhcloud.com/1.0/domain/zone",
            Some(other) => {
                return Err(format!(
                    "config.endpoint: `{other}` is none of ovh-eu, ovh-ca, ovh-us"
                ));
            }
        };
        Ok(Self { api })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    id: u64,
    sub_domain: String,
    field_type: String,
    target: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewRecord<'a> {
    field_type: &'static str,
    sub_domain: &'a str,
    target: &'a str,
    ttl: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Refusal {
    error_code: String,
    message: String,
}

impl DnsSolver for Ovh {
    fn traits(&self) -> Traits {
        Traits::default().per_zone().ttl_seconds_min(60)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            match send(Request::get(format!("{}/{}", self.api, http::escape(name)))) {
                Ok(_) => Ok(Some(String::new())),
                Err(failure) if failure.code == "zone-not-found" => Ok(None),
                Err(failure) => Err(failure),
            }
        })
    }

    witgate_sdk::by_record!();
}

impl RecordApi for Ovh {
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure> {
        let owner = relative(name, &zone.name);
        let request = Request::get(self.url(zone, "record"))
            .query("fieldType", "TXT")
            .query("subDomain", owner);
        let ids: Vec<u64> = send(request)?.json()?;
        let mut held = Vec::new();
        for id in ids {
            let record: Record =
                send(Request::get(self.url(zone, &format!("record/{id}"))))?.json()?;
            if record.field_type == "TXT" && record.sub_domain == owner {
                held.push(Held::new(record.id, record.target));
            }
        }
        Ok(held)
    }

    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure> {
        let sub_domain = relative(name, &zone.name);
        let record = NewRecord { field_type: "TXT", sub_domain, target: value, ttl: ttl_seconds };
        send(Request::post(self.url(zone, "record")).json(&record))?;
        self.refresh(zone)
    }

    fn remove(&self, zone: &Zone, _name: &str, held: &Held) -> Result<(), Failure> {
        let url = self.url(zone, &format!("record/{}", http::escape(&held.id)));
        match send(Request::delete(url)) {
            Ok(_) => self.refresh(zone),
            Err(failure) if failure.code == "zone-not-found" => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

impl Ovh {
    /// Has the zone's servers take up what was changed.
    fn refresh(&self, zone: &Zone) -> Result<(), Failure> {
        send(Request::post(self.url(zone, "refresh"))).map(drop)
    }

    fn url(&self, zone: &Zone, rest: &str) -> String {
        format!("{}/{}/{rest}", self.api, http::escape(&zone.name))
    }
}

fn send(request: Request) -> Result<Response, Failure> {
    let answer = request.sign("ovh").send()?;
    if answer.is_success() {
        return Ok(answer);
    }
    let Refusal { error_code, message } = answer.json().unwrap_or_default();
    let words = if message.is_empty() { answer.excerpt() } else { message };
    let text = format!("OVHcloud answered {} {error_code}: {words}", answer.status);
    let mut failure = Failure::from_answer(&answer, text);
    // The status is 400 or 403 for whatever is wrong with the keys.
    let words = words.to_ascii_lowercase();
    if ["INVALID_CREDENTIAL", "INVALID_KEY", "QUERY_TIME_OUT"].contains(&error_code.as_str())
        || ["signature", "this credential", "application key"].iter().any(|it| words.contains(it))
    {
        failure.code = "auth";
    }
    Err(failure)
}

#[cfg(test)]
mod conformance;
