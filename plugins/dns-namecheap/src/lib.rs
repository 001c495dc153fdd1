//! Solves DNS-01 challenges through Namecheap.
//!
//! The API knows one way to change a record: to send all records of the domain again. So each change
//! reads the domain, adds or leaves out what is this order's, and sends the rest as it was; the
//! gateway compares both and lets nothing else through. Source: Namecheap API, `domains.dns.getHosts`
//! and `domains.dns.setHosts`.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use serde::Deserialize;
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone, first_zone, owner, unquote_txt};
use witgate_sdk::http::{self, Request, Response};
use witgate_sdk::xml;

witgate_sdk::lean!();
witgate_sdk::export!(Namecheap: dns_solver);

/// The plugin.
#[derive(Debug)]
pub struct Namecheap {
    client_ip: String,
}

/// What the stanza's `config:` holds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    client_ip: String,
}

/// A record, in the API's own words.
#[derive(Clone, PartialEq)]
struct Host {
    name: String,
    kind: String,
    address: String,
    mx_pref: String,
    ttl: String,
}

impl Plugin for Namecheap {
    type Config = Config;

    fn configure(Config { client_ip }: Config) -> Result<Self, String> {
        Ok(Self { client_ip })
    }
}

impl DnsSolver for Namecheap {
    fn traits(&self) -> Traits {
        // Two changes at once would each undo the other.
        Traits::default().per_zone().ttl_seconds_min(60).propagation_seconds_max(3600)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        let domains: Vec<String> =
            candidates.iter().filter(|name| name.contains('.')).cloned().collect();
        first_zone(&domains, |name| match self.call("getHosts", name, "") {
            Ok(_) => Ok(Some(String::new())),
            Err(failure) if failure.code == "zone-not-found" => Ok(None),
            Err(failure) => Err(failure),
        })
    }

    fn present(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        ttl_seconds: u32,
    ) -> Result<String, Failure> {
        self.change(&zone.name, |hosts| {
            for value in values {
                let is_it = |host: &Host| host.is(owner(name, &zone.name), value);
                if !hosts.iter().any(is_it) {
                    hosts.push(Host {
                        name: owner(name, &zone.name).to_owned(),
                        kind: "TXT".to_owned(),
                        address: value.clone(),
                        mx_pref: "10".to_owned(),
                        ttl: ttl_seconds.to_string(),
                    });
                }
            }
        })?;
        Ok(String::new())
    }

    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        _handle: &str,
    ) -> Result<(), Failure> {
        self.change(&zone.name, |hosts| {
            hosts.retain(|host| !values.iter().any(|it| host.is(owner(name, &zone.name), it)));
        })
    }
}

impl Host {
    fn is(&self, name: &str, value: &str) -> bool {
        self.kind == "TXT" && self.name == name && unquote_txt(&self.address) == value
    }
}

impl Namecheap {
    /// Sends the domain's records again, when `edit` changes them.
    fn change(&self, domain: &str, edit: impl FnOnce(&mut Vec<Host>)) -> Result<(), Failure> {
        let answer = self.call("getHosts", domain, "")?;
        let answer = String::from_utf8_lossy(&answer.body).into_owned();
        let before: Vec<Host> = xml::tags(&answer, "host").into_iter().map(host).collect();
        let mut hosts = before.clone();
        edit(&mut hosts);
        if hosts == before {
            return Ok(());
        }
        let mut form = String::new();
        // Without it forwarded mail would stop.
        if let Some(mail) = xml::attribute(&answer, "DomainDNSGetHostsResult", "EmailType")
            && !mail.is_empty()
        {
            field(&mut form, "EmailType", &mail);
        }
        for (number, host) in (1..).zip(&hosts) {
            for (key, value) in [
                ("HostName", &host.name),
                ("RecordType", &host.kind),
                ("Address", &host.address),
                ("MXPref", &host.mx_pref),
                ("TTL", &host.ttl),
            ] {
                field(&mut form, &format!("{key}{number}"), value);
            }
        }
        self.call("setHosts", domain, &form).map(drop)
    }

    fn call(&self, command: &str, domain: &str, more: &str) -> Result<Response, Failure> {
        let (sld, tld) = domain.split_once('.').unwrap_or((domain, ""));
        let (user, key) = (http::secret("user"), http::secret("key"));
        let mut form = format!("ApiUser={user}&ApiKey={key}&UserName={user}");
        field(&mut form, "ClientIp", &self.client_ip);
        field(&mut form, "Command", &format!("namecheap.domains.dns.{command}"));
        field(&mut form, "SLD", sld);
        field(&mut form, "TLD", tld);
        form.push_str(more);
        let answer = Request::post("https://api.namecheap.com/xml.response")
            .body("application/x-www-form-urlencoded", form)
            .send()?;
        if !answer.is_success() {
            return Err(Failure::refused("Namecheap", &answer));
        }
        let text = String::from_utf8_lossy(&answer.body);
        let is_done = xml::attribute(&text, "ApiResponse", "Status").as_deref() == Some("OK")
            && xml::attribute(&text, "DomainDNSSetHostsResult", "IsSuccess").as_deref()
                != Some("false");
        if is_done {
            return Ok(answer);
        }
        let number = xml::attribute(&text, "Error", "Number").unwrap_or_default();
        let words = xml::text(&text, "Error").unwrap_or_default();
        let code = match number.as_str() {
            "1010101" | "1010102" | "1010104" | "1010105" | "1011102" | "1011105" | "1011150" => {
                "auth"
            }
            "2016166" | "2019166" | "2030166" | "2030280" => "zone-not-found",
            "2030288" => "forbidden",
            "3031510" | "3050900" | "5050900" | "4023330" | "4022330" => "unavailable",
            "500000" => "rate-limited",
            _ => "invalid",
        };
        Err(Failure::new(code, format!("Namecheap answered {number}: {words}")))
    }
}

fn host(tag: &str) -> Host {
    let part = |name| xml::attribute_of(tag, name).unwrap_or_default();
    Host {
        name: part("Name"),
        kind: part("Type"),
        address: part("Address"),
        mx_pref: part("MXPref"),
        ttl: part("TTL"),
    }
}

fn field(form: &mut String, name: &str, value: &str) {
    let _ = write!(form, "&{name}={}", http::escape(value));
}

#[cfg(test)]
mod conformance;
