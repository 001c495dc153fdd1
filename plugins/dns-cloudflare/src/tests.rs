//! The wire format by recording, the semantics with a small server that behaves like the API.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value, json};
use witgate_sdk::dns::{DnsSolver, Zone};
use witgate_sdk::http;
use witgate_sdk::testing::{Recording, Sent, answer, configure, with_server};

use super::Cloudflare;

const NAME: &str = "_acme-challenge.example.com";
const ID: &str = "023e105f4ecef8ad9ca31a8372d0c353";

fn solver() -> Cloudflare {
    configure(json!(null)).unwrap()
}

fn zone() -> Zone {
    Zone { name: "example.com".to_owned(), handle: ID.to_owned() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The TXT records of the one name: content by id.
#[derive(Default)]
struct Server {
    records: BTreeMap<String, String>,
    next: u32,
    writes: usize,
}

impl Server {
    fn holding(content: &str) -> Rc<RefCell<Self>> {
        let records = BTreeMap::from([("foreign".to_owned(), content.to_owned())]);
        Rc::new(RefCell::new(Self { records, ..Self::default() }))
    }

    fn contents(&self) -> Vec<&str> {
        let mut contents: Vec<&str> = self.records.values().map(String::as_str).collect();
        contents.sort_unstable();
        contents
    }

    fn answer(&mut self, sent: &Sent) -> http::Response {
        let entry = |id: &str, content: &str| {
            let ttl = 120;
            json!({"id": id, "name": NAME, "type": "TXT", "content": content, "ttl": ttl})
        };
        match sent.method.as_str() {
            "GET" => {
                assert!(sent.url.ends_with(&format!("?type=TXT&name={NAME}&per_page=100")));
                let all: Vec<Value> = self.records.iter().map(|(id, c)| entry(id, c)).collect();
                answer(200, json!({"success": true, "errors": [], "result": all}))
            }
            "POST" => {
                let content = sent.json()["content"].as_str().unwrap().to_owned();
                if self.records.values().any(|there| *there == content) {
                    return refusal(400, 81058, "An identical record already exists.");
                }
                self.writes += 1;
                self.next += 1;
                let id = format!("id-{}", self.next);
                self.records.insert(id.clone(), content.clone());
                answer(200, json!({"success": true, "errors": [], "result": entry(&id, &content)}))
            }
            "DELETE" => {
                let id = sent.url.rsplit('/').next().unwrap();
                match self.records.remove(id) {
                    Some(_) => {
                        self.writes += 1;
                        answer(200, json!({"success": true, "errors": [], "result": {"id": id}}))
                    }
                    None => refusal(404, 81044, "Record does not exist."),
                }
            }
            other => panic!("{other}"),
        }
    }
}

fn refusal(status: u16, code: u32, message: &str) -> http::Response {
    let errors = json!([{"code": code, "message": message}]);
    answer(status, json!({"success": false, "errors": errors, "messages": [], "result": null}))
}

fn with<R>(server: &Rc<RefCell<Server>>, call: impl FnOnce() -> R) -> R {
    let server = Rc::clone(server);
    with_server(move |sent| Ok(server.borrow_mut().answer(sent)), call)
}

#[test]
fn the_wire_format_is_that_of_the_api() {
    Recording::new(include_str!("../fixtures/two-values.json")).replay(|| {
        let solver = solver();
        let found = solver.find_zone(&texts(&[NAME, "example.com", "com"])).unwrap();
        assert_eq!(found, zone());
        let both = texts(&["one", "two"]);
        let handle = solver.present(&found, NAME, &both, 120).unwrap();
        solver.cleanup(&found, NAME, &both, &handle).unwrap();
    });
}

#[test]
fn two_values_come_and_go_beside_a_foreign_one() {
    let server = Server::holding("\"foreign\"");
    let both = texts(&["one", "two"]);
    let handle = with(&server, || solver().present(&zone(), NAME, &both, 120)).unwrap();
    assert_eq!(server.borrow().contents(), ["\"foreign\"", "\"one\"", "\"two\""]);
    with(&server, || solver().cleanup(&zone(), NAME, &texts(&["one"]), &handle)).unwrap();
    assert_eq!(server.borrow().contents(), ["\"foreign\"", "\"two\""]);
    with(&server, || solver().cleanup(&zone(), NAME, &both, &handle)).unwrap();
    assert_eq!(server.borrow().contents(), ["\"foreign\""]);
}

#[test]
fn cleanup_without_a_handle_finds_the_records() {
    let server = Server::holding("foreign");
    let both = texts(&["one", "two"]);
    with(&server, || solver().present(&zone(), NAME, &both, 120)).unwrap();
    with(&server, || solver().cleanup(&zone(), NAME, &both, "")).unwrap();
    assert_eq!(server.borrow().contents(), ["foreign"]);
    // Nothing is there: nothing to do.
    with(&server, || solver().cleanup(&zone(), NAME, &both, "not a handle")).unwrap();
}

#[test]
fn a_repetition_writes_nothing_and_has_the_same_handle() {
    let server = Rc::default();
    let both = texts(&["one", "two"]);
    let first = with(&server, || solver().present(&zone(), NAME, &both, 120)).unwrap();
    let second = with(&server, || solver().present(&zone(), NAME, &both, 120)).unwrap();
    assert_eq!((first.as_str(), server.borrow().writes), (second.as_str(), 2));
    for _ in 0..2 {
        with(&server, || solver().cleanup(&zone(), NAME, &both, &first)).unwrap();
    }
    assert_eq!(server.borrow().writes, 4);
}

#[test]
fn a_zone_id_needs_no_listing() {
    let plugin: Cloudflare = configure(json!({"zone-id": ID, "zone": "example.com"})).unwrap();
    let found = plugin.find_zone(&texts(&["a.example.com", "example.com"])).unwrap();
    assert_eq!(found, zone());
    let failure = plugin.find_zone(&texts(&["example.org"])).unwrap_err();
    assert_eq!(failure.code, "zone-not-found");

    let plugin: Cloudflare = configure(json!({"zone-id": ID, "zone-secret": "reader"})).unwrap();
    let found = with_server(
        |sent| {
            assert_eq!(sent.url, format!("https://api.cloudflare.com/client/v4/zones/{ID}"));
            assert_eq!(sent.header("authorization"), Some("Bearer {{secret:reader}}"));
            let zone = json!({"id": ID, "name": "example.com"});
            Ok(answer(200, json!({"success": true, "errors": [], "result": zone})))
        },
        || plugin.find_zone(&texts(&["example.com"])),
    );
    assert_eq!(found.unwrap(), zone());
}

#[test]
fn failures_have_codes_and_the_providers_words() {
    let mut limited = refusal(429, 10429, "Rate limited.");
    limited.headers.push(("retry-after".to_owned(), "42".to_owned()));
    let mut malformed = refusal(400, 6003, "Invalid request headers");
    malformed.body = json!({"success": false, "result": null, "errors": [{
        "code": 6003, "message": "Invalid request headers",
        "error_chain": [{"code": 6111, "message": "Invalid format for Authorization header"}],
    }]})
    .to_string()
    .into_bytes();
    let page = http::Response { status: 520, headers: Vec::new(), body: b"<html>".to_vec() };
    for (given, code, words, wait) in [
        (refusal(403, 9109, "Invalid access token"), "auth", "(secret `token`): Invalid acc", None),
        (malformed, "auth", "Invalid format for Authorization header (6111)", None),
        (refusal(403, 10000, "Authentication error"), "forbidden", "Zone:Read and DNS:Edit", None),
        (refusal(404, 7003, "Could not route"), "zone-not-found", "Could not route (7003)", None),
        (refusal(400, 9005, "Content is invalid"), "invalid", "400: Content is invalid", None),
        (limited, "rate-limited", "Rate limited. (10429)", Some(42)),
        (page, "unavailable", "520: <html>", None),
    ] {
        let status = given.status;
        let failure = with_server(
            move |_| Ok(given.clone()),
            || solver().present(&zone(), NAME, &texts(&["one"]), 120).unwrap_err(),
        );
        assert_eq!((failure.code, failure.retry_after_seconds), (code, wait), "{status} {words}");
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[test]
fn a_denied_request_says_so() {
    let failure = with_server(
        |_| {
            let message = "add to grants.http: https://api.cloudflare.com/client/v4/zones*";
            Err(http::Error { code: "denied".to_owned(), message: message.to_owned() })
        },
        || solver().find_zone(&texts(&["example.com"])).unwrap_err(),
    );
    assert_eq!(failure.code, "forbidden");
    assert!(failure.message.contains("grants.http"));
}

#[test]
fn a_bad_configuration_is_a_load_error() {
    let error = configure::<Cloudflare>(json!({"zone-id": "example.com"})).unwrap_err();
    assert!(error.starts_with("config.zone-id: `example.com` is not a zone id"), "{error}");
    let error = configure::<Cloudflare>(json!({"token": "x"})).unwrap_err();
    assert!(error.starts_with("config.token: unknown field `token`"), "{error}");
}
