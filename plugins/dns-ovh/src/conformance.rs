//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Ovh;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(3).collect();
    let absent = || answer(404, json!({"message": "This service does not exist"}));
    match (sent.method.as_str(), &path[..]) {
        (_, [zone, ..]) if !zones.has(zone) => absent(),
        ("GET", [zone]) => answer(200, json!({"name": zone})),
        ("GET", [zone, "record"]) => {
            assert_eq!(sent.query("fieldType").as_deref(), Some("TXT"));
            let records = zones.txt(&absolute(&sent.query("subDomain").unwrap(), zone));
            answer(200, json!(records.iter().map(|it| it.id).collect::<Vec<_>>()))
        }
        ("GET", [zone, "record", id]) => {
            let found = zones.below(zone).into_iter().find(|(_, it)| it.id.to_string() == *id);
            let Some((sub, it)) = found else { return absent() };
            answer(
                200,
                json!({"id": it.id, "zone": zone, "fieldType": "TXT", "subDomain": sub, "target": zones.show(&it.value), "ttl": 60}),
            )
        }
        ("POST", [zone, "record"]) => {
            let body = sent.json();
            assert_eq!(body["fieldType"], "TXT");
            let name = absolute(body["subDomain"].as_str().unwrap(), zone);
            let id = zones.add(&name, &unquote_txt(body["target"].as_str().unwrap()));
            answer(200, json!({"id": id}))
        }
        ("POST", [_, "refresh"]) => answer(200, json!(null)),
        ("DELETE", [_, "record", id]) => match zones.remove(id.parse().unwrap()) {
            true => answer(200, json!(null)),
            false => absent(),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.header("authorization") == Some("{{sign:ovh}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.config = json!({});
    case.unauthorized = || {
        answer(
            403,
            json!({"errorCode": "INVALID_CREDENTIAL", "message": "This credential is not valid"}),
        )
    };
    case.run::<Ovh>();
}
