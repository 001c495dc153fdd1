//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::Ns1;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(2).collect();
    let absent = || answer(404, json!({"message": "record not found"}));
    let replace = |zones: &mut Zones, name: &str| {
        let body = sent.json();
        assert_eq!((body["type"].as_str(), body["domain"].as_str()), (Some("TXT"), Some(name)));
        let values = body["answers"].as_array().unwrap().iter();
        let values: Vec<_> =
            values.map(|it| unquote_txt(it["answer"][0].as_str().unwrap())).collect();
        zones.replace(name, &values);
        answer(200, json!({}))
    };
    match (sent.method.as_str(), &path[..]) {
        (_, [zone, ..]) if !zones.has(zone) => answer(404, json!({"message": "zone not found"})),
        ("GET", [zone]) => answer(200, json!({"zone": zone})),
        ("GET", [_, name, "TXT"]) => {
            let values = zones.shown(name);
            let answers: Vec<_> =
                values.iter().map(|it| json!({"answer": [it], "id": "x"})).collect();
            if answers.is_empty() {
                absent()
            } else {
                answer(200, json!({"ttl": 3600, "answers": answers}))
            }
        }
        ("PUT", [_, name, "TXT"]) if !zones.txt(name).is_empty() => {
            answer(400, json!({"message": "record already exists"}))
        }
        ("POST", [_, name, "TXT"]) if zones.txt(name).is_empty() => absent(),
        ("PUT" | "POST", [_, name, "TXT"]) => replace(zones, name),
        ("DELETE", [_, name, "TXT"]) => {
            zones.replace(name, &[]);
            answer(200, json!({}))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.header("x-nsone-key") == Some("{{secret:key}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Ns1>();
}
