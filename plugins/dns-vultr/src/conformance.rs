//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Vultr;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(2).collect();
    let absent = || answer(404, json!({"error": "Invalid domain.", "status": 404}));
    match (sent.method.as_str(), &path[..]) {
        (_, [zone, ..]) if !zones.has(zone) => absent(),
        ("GET", [zone]) => answer(200, json!({"domain": {"domain": zone}})),
        ("GET", [zone, "records"]) => {
            // The first page has a record of somebody else's alone.
            if sent.query("cursor").is_none() {
                let other = json!({"id": "x", "name": "www", "type": "A", "data": "192.0.2.1"});
                return answer(
                    200,
                    json!({"records": [other], "meta": {"links": {"next": "bmV4dA=="}}}),
                );
            }
            let all = zones.below(zone).into_iter().map(|(relative, it)| {
                json!({"id": it.id.to_string(), "name": relative, "type": "TXT", "data": zones.show(&it.value)})
            });
            answer(
                200,
                json!({"records": all.collect::<Vec<_>>(), "meta": {"links": {"next": ""}}}),
            )
        }
        ("POST", [zone, "records"]) => {
            let body = sent.json();
            assert_eq!(body["type"], "TXT");
            let name = absolute(body["name"].as_str().unwrap(), zone);
            let id = zones.add(&name, &unquote_txt(body["data"].as_str().unwrap()));
            answer(201, json!({"record": {"id": id.to_string()}}))
        }
        ("DELETE", [_, "records", id]) => match zones.remove(id.parse().unwrap_or_default()) {
            true => answer(204, json!(null)),
            false => absent(),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Vultr>();
}
