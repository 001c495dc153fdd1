//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::Ionos;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(2).collect();
    let absent = || answer(404, json!([{"code": "RECORD_NOT_FOUND", "message": "not found"}]));
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["zones"]) => {
            let all = zones
                .names()
                .into_iter()
                .map(|name| json!({"id": format!("id-{name}"), "name": name}));
            answer(200, json!(all.collect::<Vec<_>>()))
        }
        (_, ["zones", id, ..]) if !zones.has(id.trim_start_matches("id-")) => absent(),
        ("GET", ["zones", id]) => {
            assert_eq!(sent.query("recordType").as_deref(), Some("TXT"));
            let name = sent.query("recordName").unwrap();
            // This API always quotes.
            let all = zones.txt(&name).into_iter().map(|it| {
                json!({"id": it.id.to_string(), "name": name, "type": "TXT", "content": witgate_sdk::dns::quote_txt(&it.value)})
            });
            answer(200, json!({"id": id, "records": all.collect::<Vec<_>>()}))
        }
        ("POST", ["zones", id, "records"]) => {
            let body = sent.json();
            let [record] = &body.as_array().unwrap()[..] else { panic!("{body}") };
            let name = record["name"].as_str().unwrap();
            assert_eq!(
                (record["type"].as_str(), zones.zone_of(name)),
                (Some("TXT"), id.strip_prefix("id-"))
            );
            let added = zones.add(name, &unquote_txt(record["content"].as_str().unwrap()));
            answer(201, json!([{"id": added.to_string(), "name": name}]))
        }
        ("DELETE", ["zones", _, "records", id]) => match zones.remove(id.parse().unwrap()) {
            true => answer(200, json!(null)),
            false => absent(),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.header("x-api-key") == Some("{{secret:key}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.unauthorized = || {
        answer(401, json!([{"code": "UNAUTHORIZED", "message": "The customer is not authorized"}]))
    };
    case.run::<Ionos>();
}
