//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Hetzner;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(1).collect();
    let absent = || answer(404, json!({"error": {"code": "not_found", "message": "not found"}}));
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["actions", _]) => action("success"),
        (_, ["zones", zone, ..]) if !zones.has(zone) => absent(),
        ("GET", ["zones", zone]) => answer(200, json!({"zone": {"id": 1, "name": zone}})),
        ("GET", ["zones", zone, "rrsets", name, "TXT"]) => {
            // This API always quotes.
            let found = zones.txt(&absolute(name, zone));
            let quoted = found.iter().map(|record| witgate_sdk::dns::quote_txt(&record.value));
            let records: Vec<_> = quoted.map(|value| json!({"value": value})).collect();
            match records.is_empty() {
                true => absent(),
                false => answer(200, json!({"rrset": {"name": name, "records": records}})),
            }
        }
        ("POST", ["zones", zone, "rrsets", name, "TXT", "actions", action_name]) => {
            let (name, body) = (absolute(name, zone), sent.json());
            // A TTL can only be given with the first records.
            assert!(body["ttl"].is_null() || zones.txt(&name).is_empty());
            for record in body["records"].as_array().unwrap() {
                let value = unquote_txt(record["value"].as_str().unwrap());
                match *action_name {
                    "add_records" => drop(zones.add(&name, &value)),
                    "remove_records" => assert!(zones.remove_value(&name, &value)),
                    other => panic!("{other}"),
                }
            }
            action("running")
        }
        other => panic!("{other:?}"),
    }
}

fn action(status: &str) -> http::Response {
    let error = (status == "error").then(|| json!({"code": "x", "message": "no room"}));
    answer(201, json!({"action": {"id": 7, "status": status, "error": error}}))
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Hetzner>();
}

#[test]
fn an_action_is_waited_for() {
    use witgate_sdk::dns::{DnsSolver, Zone};

    let zone = Zone { name: "example.com".to_owned(), handle: String::new() };
    let poll = |status: &'static str, handle: &str| {
        let server = move |_: &Sent| Ok(action(status));
        witgate_sdk::testing::with_server(server, || Hetzner.poll(&zone, handle))
    };
    assert_eq!(poll("running", "7"), Ok(Some(2)));
    assert_eq!(poll("success", "7"), Ok(None));
    assert_eq!(poll("running", ""), Ok(None));
    let failure = poll("error", "7").unwrap_err();
    assert_eq!(failure.code, "unavailable");
    assert!(failure.message.contains("no room"), "{}", failure.message);
}
