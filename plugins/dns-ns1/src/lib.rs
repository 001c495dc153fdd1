//! Solves DNS-01 challenges through NS1.
//!
//! The API takes whole record sets: `PUT` makes one, `POST` changes one. Source: NS1 API v1, "Records".

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{
    DnsSolver, Failure, RecordSet, SetApi, Traits, Zone, first_zone, send, send_optional,
};
use witgate_sdk::http::{self, Request};

witgate_sdk::solver! {
    /// The plugin.
    Ns1
}

#[derive(Deserialize)]
struct Found {
    ttl: u32,
    answers: Vec<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    answer: Vec<String>,
}

#[derive(Serialize)]
struct Set<'a> {
    zone: &'a str,
    domain: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    ttl: Option<u32>,
    answers: Vec<Answer>,
}

impl DnsSolver for Ns1 {
    fn traits(&self) -> Traits {
        Traits::default().per_zone()
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        first_zone(candidates, |name| {
            // Without its records, of which there may be thousands.
            let request = Request::get(zone_url(name)).query("records", "false");
            Ok(send_optional(to(request), PROVIDER)?.map(|_| String::new()))
        })
    }

    witgate_sdk::by_set!();
}

impl SetApi for Ns1 {
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure> {
        let Some(answer) = send_optional(to(Request::get(url(zone, name))), PROVIDER)? else {
            return Ok(RecordSet::default());
        };
        let Found { ttl, answers } = answer.json()?;
        let contents = answers.into_iter().map(|answer| answer.answer.concat()).collect();
        Ok(RecordSet { contents, ttl_seconds: Some(ttl), ..RecordSet::default() })
    }

    fn write(
        &self,
        zone: &Zone,
        name: &str,
        before: &RecordSet,
        after: &RecordSet,
    ) -> Result<String, Failure> {
        let url = url(zone, name);
        if after.contents.is_empty() {
            send_optional(to(Request::delete(url)), PROVIDER)?;
            return Ok(String::new());
        }
        let answer = |content: &String| Answer { answer: [content.clone()].into() };
        let set = Set {
            zone: &zone.name,
            domain: name,
            kind: "TXT",
            ttl: after.ttl_seconds,
            answers: after.contents.iter().map(answer).collect(),
        };
        let is_new = before.contents.is_empty();
        let request = if is_new { Request::put(url) } else { Request::post(url) };
        send(to(request.json(&set)), PROVIDER)?;
        Ok(String::new())
    }

    fn content(value: &str) -> String {
        value.into()
    }
}

fn zone_url(name: &str) -> String {
    format!("https://api.nsone.net/v1/zones/{}", http::escape(name))
}

fn url(zone: &Zone, name: &str) -> String {
    format!("{}/{}/TXT", zone_url(&zone.name), http::escape(name))
}

fn to(request: Request) -> Request {
    request.secret("x-nsone-key", "key")
}

const PROVIDER: &str = "NS1";

#[cfg(test)]
mod conformance;
