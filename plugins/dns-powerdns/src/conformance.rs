//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::PowerDns;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(5).collect();
    match (sent.method.as_str(), &path[..]) {
        ("GET", []) => {
            let name = sent.query("zone").unwrap();
            let zone = json!({"id": name, "name": name, "kind": "Native"});
            let is_there = zones.has(name.strip_suffix('.').unwrap());
            answer(200, if is_there { json!([zone]) } else { json!([]) })
        }
        (_, [zone]) if !zones.has(zone.trim_end_matches('.')) => {
            answer(404, json!({"error": "Could not find domain"}))
        }
        ("GET", [_]) => {
            let name = sent.query("rrset_name").unwrap();
            let found = zones.txt(name.strip_suffix('.').unwrap());
            // This API always quotes.
            let content = |value: &str| witgate_sdk::dns::quote_txt(value);
            let records: Vec<_> = found
                .iter()
                .map(|record| json!({"content": content(&record.value), "disabled": false}))
                .collect();
            let set = json!({"name": name, "type": "TXT", "ttl": 60, "records": records});
            let sets = if records.is_empty() { json!([]) } else { json!([set]) };
            answer(200, json!({"kind": "Native", "rrsets": sets}))
        }
        ("PATCH", [zone]) => {
            let body = sent.json();
            let set = &body["rrsets"][0];
            assert_eq!(set["type"], "TXT");
            let name = set["name"].as_str().unwrap().strip_suffix('.').unwrap();
            assert_eq!(zones.zone_of(name), zone.strip_suffix('.'));
            let records = set["records"].as_array().cloned().unwrap_or_default();
            assert_eq!(set["changetype"], if records.is_empty() { "DELETE" } else { "REPLACE" });
            let text =
                |record: &serde_json::Value| unquote_txt(record["content"].as_str().unwrap());
            zones.replace(name, &records.iter().map(text).collect::<Vec<_>>());
            http::Response { status: 204, headers: Vec::new(), body: Vec::new() }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.header("x-api-key") == Some("{{secret:key}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.config = json!({"api": "http://127.0.0.1:8081"});
    case.run::<PowerDns>();
}
