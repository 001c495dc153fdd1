//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Porkbun;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(4).collect();
    let success = |more: serde_json::Value| {
        let mut body = json!({"status": "SUCCESS"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answer(200, body)
    };
    match &path[..] {
        [_, zone, ..] if !zones.has(zone) => {
            answer(400, json!({"status": "ERROR", "message": "Invalid domain."}))
        }
        ["retrieveByNameType", _, "NS"] => success(json!({"records": []})),
        ["retrieveByNameType", zone, "TXT", rest @ ..] => {
            let name = absolute(rest.first().unwrap_or(&""), zone);
            let records = zones.txt(&name);
            let entry = |id: u64, value: &str| json!({"id": id.to_string(), "name": name, "type": "TXT", "content": value});
            let all: Vec<_> =
                records.iter().map(|it| entry(it.id, &zones.show(&it.value))).collect();
            success(json!({"records": all}))
        }
        ["create", zone] => {
            let body = sent.json();
            assert_eq!(body["type"], "TXT");
            let name = absolute(body["name"].as_str().unwrap(), zone);
            let id = zones.add(&name, &unquote_txt(body["content"].as_str().unwrap()));
            success(json!({"id": id}))
        }
        ["delete", _, id] => match zones.remove(id.parse().unwrap()) {
            true => success(json!({})),
            false => answer(400, json!({"status": "ERROR", "message": "Invalid record ID."})),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| {
        let body = sent.json();
        body["apikey"] == "{{secret:key}}" && body["secretapikey"] == "{{secret:secret}}"
    };
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.unauthorized =
        || answer(400, json!({"status": "ERROR", "message": "Invalid API key. (002)"}));
    case.run::<Porkbun>();
}
