//! Solves DNS-01 challenges through Amazon Route 53.
//!
//! The API takes whole record sets, in XML; a change is live when it is `INSYNC`. The gateway signs.
//! Source: Amazon Route 53 API Reference 2013-04-01.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use serde::Deserialize;
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, RecordSet, SetApi, Traits, Zone, first_zone};
use witgate_sdk::http::{self, Request};
use witgate_sdk::xml::{elements, escape, text};

witgate_sdk::lean!();
witgate_sdk::export!(Route53: dns_solver);

/// The plugin, configured.
#[derive(Debug)]
pub struct Route53 {
    zone: Option<(String, String)>,
}

/// `config:`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Used by the gateway alone, which signs.
    #[serde(rename = "region")]
    _region: Option<String>,
    zone_id: Option<String>,
    zone: Option<String>,
}

impl Plugin for Route53 {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let name = config.zone.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        match (name, config.zone_id) {
            (Some(name), Some(id)) => Ok(Self { zone: Some((name, id)) }),
            (None, None) => Ok(Self { zone: None }),
            _ => Err("config.zone and config.zone-id go together".into()),
        }
    }
}

impl DnsSolver for Route53 {
    fn traits(&self) -> Traits {
        Traits::default().per_zone()
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        if let Some((name, id)) = &self.zone {
            return match candidates.contains(name) {
                true => Ok(Zone { name: name.clone(), handle: id.clone() }),
                false => Err(Failure::zone_not_found(candidates)),
            };
        }
        first_zone(candidates, |name| {
            // A list in the order of names, from this one on: private zones may have the same.
            let request = Request::get(format!("{API}/hostedzonesbyname"))
                .query("dnsname", &format!("{name}."))
                .query("maxitems", "10");
            let answer = send(request)?;
            let is_it = |zone: &&&str| {
                let found = text(zone, "Name").unwrap_or_default().to_ascii_lowercase();
                let is_private = text(zone, "PrivateZone").as_deref() == Some("true");
                found.trim_end_matches('.') == name && !is_private
            };
            let zones = elements(&answer, "HostedZone");
            let id = zones.iter().find(is_it).and_then(|zone| text(zone, "Id"));
            Ok(id.map(|id| id.trim_start_matches("/hostedzone/").into()))
        })
    }

    fn poll(&self, _zone: &Zone, handle: &str) -> Result<Option<u32>, Failure> {
        if handle.is_empty() {
            return Ok(None);
        }
        let answer = send(Request::get(format!("{API}/change/{}", http::escape(handle))))?;
        Ok((text(&answer, "Status").as_deref() == Some("PENDING")).then_some(5))
    }

    witgate_sdk::by_set!();
}

impl SetApi for Route53 {
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure> {
        let absolute = format!("{name}.");
        let request = Request::get(sets(zone))
            .query("name", &absolute)
            .query("type", "TXT")
            .query("maxitems", "1");
        let answer = send(request)?;
        // Where there is none, the list goes on with the next one.
        let sets = elements(&answer, "ResourceRecordSet");
        let is_it = |set: &&&str| {
            text(set, "Name").is_some_and(|found| found.eq_ignore_ascii_case(&absolute))
                && text(set, "Type").as_deref() == Some("TXT")
        };
        let Some(set) = sets.iter().find(is_it) else { return Ok(RecordSet::default()) };
        let contents = elements(set, "Value").into_iter().map(witgate_sdk::xml::unescape).collect();
        let ttl_seconds = text(set, "TTL").and_then(|ttl| ttl.parse().ok());
        Ok(RecordSet { contents, ttl_seconds, ..RecordSet::default() })
    }

    /// A set is removed by naming it exactly as it is.
    fn write(
        &self,
        zone: &Zone,
        name: &str,
        before: &RecordSet,
        after: &RecordSet,
    ) -> Result<String, Failure> {
        let (action, set) = match after.contents.is_empty() {
            true => ("DELETE", before),
            false => ("UPSERT", after),
        };
        let record = |value: &String| {
            format!("<ResourceRecord><Value>{}</Value></ResourceRecord>", escape(value))
        };
        let records: String = set.contents.iter().map(record).collect();
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\">\
             <ChangeBatch><Changes><Change><Action>{action}</Action><ResourceRecordSet>\
             <Name>{}.</Name><Type>TXT</Type><TTL>{}</TTL>\
             <ResourceRecords>{records}</ResourceRecords></ResourceRecordSet></Change></Changes>\
             </ChangeBatch></ChangeResourceRecordSetsRequest>",
            escape(name),
            set.ttl_seconds.unwrap_or(60)
        );
        let answer = send(Request::post(sets(zone)).body("text/xml", body))?;
        let id = text(&answer, "Id").unwrap_or_default();
        Ok(id.trim_start_matches("/change/").into())
    }
}

fn sets(zone: &Zone) -> String {
    format!("{API}/hostedzone/{}/rrset", http::escape(&zone.handle))
}

/// Sends a request that the gateway signs; the text of the answer.
fn send(request: Request) -> Result<String, Failure> {
    let answer = request.sign("aws").send()?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.is_success() {
        return Ok(body);
    }
    let code = text(&body, "Code").unwrap_or_default();
    let words = text(&body, "Message").unwrap_or_else(|| answer.excerpt());
    let message = format!("Route 53 answered {} {code}: {words}", answer.status);
    let mut failure = Failure::from_answer(&answer, message);
    failure.code = match code.as_str() {
        "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "UnrecognizedClientException" => "auth",
        "AccessDenied" | "AccessDeniedException" => "forbidden",
        "Throttling" | "ThrottlingException" => "rate-limited",
        "PriorRequestNotComplete" => "conflict",
        "NoSuchHostedZone" => "zone-not-found",
        _ => failure.code,
    };
    Err(failure)
}

const API: &str = "https://route53.amazonaws.com/2013-04-01";

#[cfg(test)]
mod conformance;
