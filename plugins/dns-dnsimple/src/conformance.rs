//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::DnSimple;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(1).collect();
    let absent = || answer(404, json!({"message": "Zone not found"}));
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["whoami"]) => {
            answer(200, json!({"data": {"user": null, "account": {"id": 1010}}}))
        }
        (_, ["1010", "zones", zone, ..]) if !zones.has(zone) => absent(),
        ("GET", ["1010", "zones", zone]) => answer(200, json!({"data": {"name": zone}})),
        ("GET", ["1010", "zones", zone, "records"]) => {
            assert_eq!(sent.query("type").as_deref(), Some("TXT"));
            let name = sent.query("name").unwrap();
            // This API always quotes.
            let all = zones.txt(&absolute(&name, zone)).into_iter().map(|it| {
                json!({"id": it.id, "name": name, "type": "TXT", "content": witgate_sdk::dns::quote_txt(&it.value)})
            });
            answer(200, json!({"data": all.collect::<Vec<_>>()}))
        }
        ("POST", ["1010", "zones", zone, "records"]) => {
            let body = sent.json();
            assert_eq!(body["type"], "TXT");
            let name = absolute(body["name"].as_str().unwrap(), zone);
            let id = zones.add(&name, &unquote_txt(body["content"].as_str().unwrap()));
            answer(201, json!({"data": {"id": id}}))
        }
        ("DELETE", ["1010", "zones", _, "records", id]) => {
            match zones.remove(id.parse().unwrap()) {
                true => answer(204, json!(null)),
                false => absent(),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<DnSimple>();
}
