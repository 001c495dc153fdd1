//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::DigitalOcean;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(2).collect();
    let absent = || answer(404, json!({"id": "not_found", "message": "not found"}));
    match (sent.method.as_str(), &path[..]) {
        (_, [zone, ..]) if !zones.has(zone) => absent(),
        ("GET", [zone]) => answer(200, json!({"domain": {"name": zone}})),
        ("GET", [zone, "records"]) => {
            let name = sent.query("name").unwrap();
            let relative = name.strip_suffix(zone).unwrap().trim_end_matches('.');
            let relative = if relative.is_empty() { "@" } else { relative };
            let entry = |id: u64, value: &str| json!({"id": id, "type": "TXT", "name": relative, "data": value});
            let records = zones.txt(&name);
            let all: Vec<_> =
                records.iter().map(|it| entry(it.id, &zones.show(&it.value))).collect();
            answer(200, json!({"domain_records": all}))
        }
        ("POST", [zone, "records"]) => {
            let body = sent.json();
            assert_eq!(body["type"], "TXT");
            let name = absolute(body["name"].as_str().unwrap(), zone);
            let id = zones.add(&name, &unquote_txt(body["data"].as_str().unwrap()));
            answer(201, json!({"domain_record": {"id": id}}))
        }
        ("DELETE", [_, "records", id]) => match zones.remove(id.parse().unwrap()) {
            true => http::Response { status: 204, headers: Vec::new(), body: Vec::new() },
            false => absent(),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<DigitalOcean>();
}
