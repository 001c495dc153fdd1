//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Desec;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(2).collect();
    let absent = || answer(404, json!({"detail": "Not found."}));
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["domains", ""]) => {
            let zone = zones.zone_of(&sent.query("owns_qname").unwrap()).map(str::to_owned);
            let all: Vec<_> = zone.iter().map(|zone| json!({"name": zone})).collect();
            answer(200, json!(all))
        }
        (_, ["domains", zone, ..]) if !zones.has(zone) => absent(),
        ("GET", ["domains", zone, "rrsets", name, "TXT", ""]) => {
            // This API always quotes.
            let found = zones.txt(&absolute(name, zone));
            let quote = |value: &str| witgate_sdk::dns::quote_txt(value);
            let records: Vec<_> = found.iter().map(|record| quote(&record.value)).collect();
            let subname = if *name == "@" { "" } else { name };
            let set = json!({
                "subname": subname, "name": "ignored", "type": "TXT", "ttl": 7200,
                "records": records
            });
            if records.is_empty() { absent() } else { answer(200, set) }
        }
        ("PUT", ["domains", zone, "rrsets", ""]) => {
            let body = sent.json();
            let [set] = &body.as_array().unwrap()[..] else { panic!("{body}") };
            assert_eq!(set["type"], "TXT");
            let name = absolute(set["subname"].as_str().unwrap(), zone);
            // What is there keeps its TTL.
            let ttl = if zones.txt(&name).is_empty() { 3600 } else { 7200 };
            assert_eq!(set["ttl"], ttl);
            let text = |record: &serde_json::Value| unquote_txt(record.as_str().unwrap());
            let values: Vec<_> = set["records"].as_array().unwrap().iter().map(text).collect();
            zones.replace(&name, &values);
            answer(200, json!([]))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Token {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Desec>();
}
