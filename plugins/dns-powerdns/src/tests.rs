//! The wire format by recording (made with PowerDNS 4.7), the semantics with a small server that
//! behaves like it.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value, json};
use witgate_sdk::dns::{DnsSolver, Zone};
use witgate_sdk::http;
use witgate_sdk::testing::{Recording, Sent, answer, configure, with_server};

use super::PowerDns;

const NAME: &str = "_acme-challenge.example.org";

fn solver() -> PowerDns {
    configure(json!({"api": "http://127.0.0.1:8081/"})).unwrap()
}

fn zone() -> Zone {
    Zone { name: "example.org".to_owned(), handle: "example.org.".to_owned() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The TXT record set of the one name, with its TTL, and the number of writes.
#[derive(Default)]
struct Server {
    set: Option<(u64, Vec<Value>)>,
    writes: usize,
}

impl Server {
    fn answer(&mut self, sent: &Sent) -> http::Response {
        if sent.method == "GET" {
            let sets = self.set.iter().map(|(ttl, records)| {
                json!({"name": format!("{NAME}."), "type": "TXT", "ttl": ttl, "records": records})
            });
            let other = json!({"name": format!("{NAME}."), "type": "CAA", "ttl": 1, "records": []});
            let sets: Vec<Value> = std::iter::once(other).chain(sets).collect();
            return answer(200, json!({"kind": "Native", "rrsets": sets}));
        }
        assert_eq!(sent.method, "PATCH");
        self.writes += 1;
        let change = sent.json()["rrsets"][0].clone();
        assert_eq!((&change["name"], &change["type"]), (&json!(format!("{NAME}.")), &json!("TXT")));
        self.set = match change["changetype"].as_str().unwrap() {
            "REPLACE" => {
                let records = change["records"].as_array().unwrap().clone();
                Some((change["ttl"].as_u64().unwrap(), records))
            }
            "DELETE" => None,
            other => panic!("{other}"),
        };
        answer(204, Value::Null)
    }
}

fn with<R>(server: &Rc<RefCell<Server>>, call: impl FnOnce() -> R) -> R {
    let server = Rc::clone(server);
    with_server(move |sent| Ok(server.borrow_mut().answer(sent)), call)
}

fn record(content: &str) -> Value {
    json!({"content": content, "disabled": false})
}

#[test]
fn the_wire_format_is_that_of_the_server() {
    Recording::new(include_str!("../fixtures/two-values.json")).replay(|| {
        let solver = solver();
        let candidates = texts(&[NAME, "example.org", "org"]);
        let zone = solver.find_zone(&candidates).unwrap();
        assert_eq!(zone, super::tests::zone());
        solver.present(&zone, NAME, &texts(&["one", "two"]), 60).unwrap();
    });
}

#[test]
fn two_values_come_and_go() {
    let server = Rc::default();
    with(&server, || solver().present(&zone(), NAME, &texts(&["one", "two"]), 60)).unwrap();
    let both = vec![record("\"one\""), record("\"two\"")];
    assert_eq!(server.borrow().set, Some((60, both)));
    with(&server, || solver().cleanup(&zone(), NAME, &texts(&["one"]), "")).unwrap();
    assert_eq!(server.borrow().set, Some((60, vec![record("\"two\"")])));
    with(&server, || solver().cleanup(&zone(), NAME, &texts(&["two"]), "")).unwrap();
    assert_eq!(server.borrow().set, None);
}

#[test]
fn what_belongs_to_others_stays() {
    let foreign =
        vec![record("\"keep \\\"me\\\"\""), json!({"content": "\"off\"", "disabled": true})];
    let server = Rc::new(RefCell::new(Server { set: Some((300, foreign.clone())), writes: 0 }));
    with(&server, || solver().present(&zone(), NAME, &texts(&["one"]), 60)).unwrap();
    let mut expected = foreign.clone();
    expected.push(record("\"one\""));
    assert_eq!(server.borrow().set, Some((300, expected)));
    with(&server, || solver().cleanup(&zone(), NAME, &texts(&["one", "absent"]), "")).unwrap();
    assert_eq!(server.borrow().set, Some((300, foreign)));
}

#[test]
fn a_disabled_value_is_put_back_in_service() {
    let off = vec![json!({"content": "\"one\"", "disabled": true})];
    let server = Rc::new(RefCell::new(Server { set: Some((60, off)), writes: 0 }));
    with(&server, || solver().present(&zone(), NAME, &texts(&["one"]), 60)).unwrap();
    assert_eq!(server.borrow().set, Some((60, vec![record("\"one\"")])));
}

#[test]
fn a_repetition_writes_nothing() {
    let server = Rc::default();
    for _ in 0..2 {
        with(&server, || solver().present(&zone(), NAME, &texts(&["one", "two"]), 60)).unwrap();
    }
    assert_eq!(server.borrow().writes, 1);
    for _ in 0..2 {
        with(&server, || solver().cleanup(&zone(), NAME, &texts(&["one", "two"]), "")).unwrap();
    }
    assert_eq!(server.borrow().writes, 2);
}

#[test]
fn failures_have_codes_and_the_servers_words() {
    let text = |status, body: &str| http::Response {
        status,
        headers: vec![("retry-after".to_owned(), "17".to_owned())],
        body: body.as_bytes().to_vec(),
    };
    for (given, code, words, wait) in [
        (text(401, "Unauthorized"), "auth", "refused the API key (secret `key`): Unauth", None),
        (text(404, "Not Found"), "zone-not-found", "config.server-id", None),
        (text(409, "Conflict"), "conflict", "409: Conflict", None),
        (text(422, r#"{"error": "Name is out of zone"}"#), "invalid", "422: Name is out", None),
        (text(429, ""), "rate-limited", "429", Some(17)),
        (text(502, "<html>"), "unavailable", "502: <html>", Some(17)),
    ] {
        let status = given.status;
        let failure = with_server(
            move |_| Ok(given.clone()),
            || solver().present(&zone(), NAME, &texts(&["one"]), 60).unwrap_err(),
        );
        assert_eq!((failure.code, failure.retry_after_seconds), (code, wait), "{status}");
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[test]
fn a_secondary_zone_is_refused() {
    let zones = json!([{"id": "example.org.", "name": "example.org.", "kind": "Slave"}]);
    let failure = with_server(
        move |_| Ok(answer(200, zones.clone())),
        || solver().find_zone(&texts(&["example.org"])).unwrap_err(),
    );
    assert_eq!(failure.code, "forbidden");
}

#[test]
fn an_account_without_the_zone_says_so() {
    let failure = with_server(
        |_| Ok(answer(200, json!([]))),
        || solver().find_zone(&texts(&["a.example.org", "example.org"])).unwrap_err(),
    );
    assert_eq!(failure.code, "zone-not-found");
    assert!(failure.message.ends_with("any of: a.example.org, example.org"));
}

#[test]
fn a_bad_url_is_a_load_error() {
    let error = configure::<PowerDns>(json!({"api": "127.0.0.1:8081"})).unwrap_err();
    assert!(error.starts_with("config.api: `127.0.0.1:8081` is not a URL"), "{error}");
    let error = configure::<PowerDns>(json!(null)).unwrap_err();
    assert_eq!(error, "config: missing field `api`");
}
