//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Scaleway;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(3).collect();
    match (sent.method.as_str(), &path[..]) {
        ("GET", []) => {
            let name = sent.query("dns_zone").unwrap();
            let (subdomain, domain) = name.split_once('.').unwrap_or(("", &name));
            // A zone of its own below another one is told in two parts.
            let found = zones.has(&name).then(|| match domain {
                "example.org" => json!({"domain": domain, "subdomain": subdomain}),
                _ => json!({"domain": name, "subdomain": ""}),
            });
            answer(200, json!({"dns_zones": found.into_iter().collect::<Vec<_>>()}))
        }
        (_, [zone, "records"]) if !zones.has(zone) => {
            answer(404, json!({"message": "resource is not found"}))
        }
        ("GET", [zone, "records"]) => {
            assert_eq!(sent.query("type").as_deref(), Some("TXT"));
            let name = sent.query("name").unwrap();
            // This API always quotes.
            let all = zones.txt(&absolute(&name, zone)).into_iter().map(|it| {
                json!({"id": it.id.to_string(), "name": name, "type": "TXT", "data": witgate_sdk::dns::quote_txt(&it.value)})
            });
            answer(200, json!({"records": all.collect::<Vec<_>>()}))
        }
        ("PATCH", [zone, "records"]) => {
            let body = sent.json();
            let [change] = &body["changes"].as_array().unwrap()[..] else { panic!("{body}") };
            let text =
                |record: &serde_json::Value, key: &str| record[key].as_str().unwrap().to_owned();
            if let Some(records) = change["add"]["records"].as_array() {
                for record in records {
                    assert_eq!(record["type"], "TXT");
                    zones.add(
                        &absolute(&text(record, "name"), zone),
                        &unquote_txt(&text(record, "data")),
                    );
                }
            } else {
                let fields = &change["delete"]["id_fields"];
                let name = absolute(&text(fields, "name"), zone);
                assert!(zones.remove_value(&name, &unquote_txt(&text(fields, "data"))), "{body}");
            }
            answer(200, json!({"records": []}))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.header("x-auth-token") == Some("{{secret:key}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Scaleway>();
}
