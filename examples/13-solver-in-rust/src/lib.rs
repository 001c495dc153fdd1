//! A DNS-01 solver for a provider with a small JSON API over single records, as most have. The API
//! is the one of `examples/provider.py`, so that all of this can be tried on one machine.
//!
//! The gateway computes names and values, retries, waits and cleans up; here is only the API. The
//! token is a placeholder: the gateway puts the secret in when it sends.

use serde::Deserialize;
use serde_json::json;
use witgate_sdk::Plugin;
use witgate_sdk::dns::{DnsSolver, Failure, Traits, Zone};
use witgate_sdk::http::{Request, Response, escape};

/// The plugin, configured.
pub struct ExampleDns {
    api: String,
    ttl_seconds: Option<u32>,
}

/// `config:` of the stanza.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The URL of the API, such as `https://api.provider.example/v1`.
    api: String,
    /// The TTL of the records in seconds, instead of what the gateway asks for.
    ttl: Option<u32>,
}

#[derive(Deserialize)]
struct Zones {
    zones: Vec<Entry>,
}

#[derive(Deserialize)]
struct Records {
    records: Vec<Entry>,
}

/// A zone or a record.
#[derive(Deserialize)]
struct Entry {
    id: String,
    name: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    status: String,
}

impl Plugin for ExampleDns {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if !config.api.starts_with("https://") && !config.api.starts_with("http://") {
            return Err("config.api: a URL such as https://api.provider.example/v1".into());
        }
        if config.ttl == Some(0) {
            return Err("config.ttl: at least one second".into());
        }
        let api = config.api.trim_end_matches('/').to_owned();
        Ok(Self { api, ttl_seconds: config.ttl })
    }
}

impl DnsSolver for ExampleDns {
    fn traits(&self) -> Traits {
        Traits::default().ttl_seconds_min(30)
    }

    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
        for name in candidates {
            let request = Request::get(format!("{}/zones", self.api)).query("name", name);
            let found: Zones = send(request)?.json()?;
            if let Some(zone) = found.zones.into_iter().find(|zone| zone.name == *name) {
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
        let ttl = self.ttl_seconds.unwrap_or(ttl_seconds);
        let mut ids = Vec::new();
        for value in values {
            let record = json!({"type": "TXT", "name": name, "content": value, "ttl": ttl});
            let answer = Request::post(self.records(zone)).bearer_secret("token").json(&record);
            let answer = answer.send()?;
            // It is there already, from a call that did not come through.
            if answer.status != 409 {
                ids.push(checked(answer)?.json::<Entry>()?.id);
            }
        }
        // Records that were there already are found by their value when they are removed.
        Ok(if ids.len() == values.len() { ids.join(" ") } else { String::new() })
    }

    fn poll(&self, zone: &Zone, handle: &str) -> Result<Option<u32>, Failure> {
        for id in handle.split_whitespace() {
            let record: Entry = send(Request::get(self.record(zone, id)))?.json()?;
            if record.status == "pending" {
                return Ok(Some(1));
            }
        }
        Ok(None)
    }

    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        handle: &str,
    ) -> Result<(), Failure> {
        let mut ids: Vec<String> = handle.split_whitespace().map(str::to_owned).collect();
        if ids.is_empty() {
            let request = Request::get(self.records(zone)).query("type", "TXT").query("name", name);
            let found: Records = send(request)?.json()?;
            // Nobody else's: the name may hold more than ours.
            let ours = found.records.into_iter().filter(|record| values.contains(&record.content));
            ids.extend(ours.map(|record| record.id));
        }
        for id in ids {
            let request = Request::delete(self.record(zone, &id));
            let answer = request.bearer_secret("token").send()?;
            // It is gone already.
            if answer.status != 404 {
                checked(answer)?;
            }
        }
        Ok(())
    }
}

impl ExampleDns {
    fn records(&self, zone: &Zone) -> String {
        format!("{}/zones/{}/records", self.api, escape(&zone.handle))
    }

    fn record(&self, zone: &Zone, id: &str) -> String {
        format!("{}/{}", self.records(zone), escape(id))
    }
}

fn send(request: Request) -> Result<Response, Failure> {
    checked(request.bearer_secret("token").send()?)
}

/// The answer if it is one of success; else a failure in the provider's own words.
fn checked(answer: Response) -> Result<Response, Failure> {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    if answer.is_success() {
        return Ok(answer);
    }
    let words = answer.json::<Refusal>().map_or_else(|_| answer.excerpt(), |said| said.error);
    Err(Failure::from_answer(&answer, words))
}

witgate_sdk::export!(ExampleDns: dns_solver);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use witgate_sdk::testing::{Sent, answer, configure, with_server};

    use super::*;

    fn solver() -> ExampleDns {
        configure(json!({"api": "https://api.example/v1/"})).unwrap()
    }

    fn zone() -> Zone {
        Zone { name: "example.com".into(), handle: "z1".into() }
    }

    fn values() -> Vec<String> {
        vec!["one".into(), "two".into()]
    }

    #[test]
    fn records_are_added_and_exactly_those_removed() {
        let serve = |sent: &Sent| match sent.method.as_str() {
            "POST" => {
                assert_eq!(sent.header("authorization"), Some("Bearer {{secret:token}}"));
                let content = sent.json()["content"].as_str().unwrap().to_owned();
                Ok(answer(201, json!({"id": format!("r-{content}"), "name": "n"})))
            }
            _ => Ok(answer(204, json!(null))),
        };
        let handle = with_server(serve, || solver().present(&zone(), "n", &values(), 60)).unwrap();
        assert_eq!(handle, "r-one r-two");
        with_server(serve, || solver().cleanup(&zone(), "n", &values(), &handle)).unwrap();
    }

    #[test]
    fn without_a_handle_only_our_values_are_removed() {
        let removed = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&removed);
        let serve = move |sent: &Sent| {
            if sent.method == "DELETE" {
                seen.borrow_mut().push(sent.url.rsplit('/').next().unwrap().to_owned());
                return Ok(answer(204, json!(null)));
            }
            let record = |id, content| json!({"id": id, "name": "n", "content": content});
            let records = [record("a", "one"), record("b", "somebody else's")];
            Ok(answer(200, json!({"records": records})))
        };
        with_server(serve, || solver().cleanup(&zone(), "n", &values(), "")).unwrap();
        assert_eq!(*removed.borrow(), ["a"]);
    }

    #[test]
    fn the_provider_speaks_for_itself() {
        let serve = |_: &Sent| Ok(answer(403, json!({"error": "this token is read-only"})));
        let failure = with_server(serve, || solver().present(&zone(), "n", &values(), 60));
        let failure = failure.unwrap_err();
        assert_eq!(failure.code, "forbidden");
        assert_eq!(failure.message, "this token is read-only");
    }
}
