//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Infomaniak;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(1).collect();
    let absent = || answer(404, json!({"result": "error", "error": {"code": "object_not_found"}}));
    let id_of =
        |zone: &str| zone.bytes().fold(7_u64, |id, byte| id * 31 % 1_000_007 + u64::from(byte));
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["product"]) => {
            assert_eq!(sent.query("service_name").as_deref(), Some("domain"));
            let name = sent.query("customer_name").unwrap();
            let found =
                zones.has(&name).then(|| json!({"id": id_of(&name), "customer_name": name}));
            answer(200, json!({"result": "success", "data": found.into_iter().collect::<Vec<_>>()}))
        }
        (method, ["domain", id, "dns", "record", rest @ ..]) => {
            let found = zones.names().into_iter().find(|zone| id_of(zone).to_string() == *id);
            let Some(zone) = found else { return absent() };
            match (method, rest) {
                ("GET", []) => {
                    let all = zones.below(&zone).into_iter().map(|(source, it)| {
                        json!({"id": it.id.to_string(), "source": source, "type": "TXT", "target": zones.show(&it.value)})
                    });
                    let mut all: Vec<_> = all.collect();
                    all.push(
                        json!({"id": "x", "source": "www", "type": "A", "target": "192.0.2.1"}),
                    );
                    answer(200, json!({"result": "success", "data": all}))
                }
                ("POST", []) => {
                    let body = sent.json();
                    assert_eq!(body["type"], "TXT");
                    let name = absolute(body["source"].as_str().unwrap(), &zone);
                    let id = zones.add(&name, &unquote_txt(body["target"].as_str().unwrap()));
                    answer(201, json!({"result": "success", "data": id.to_string()}))
                }
                ("DELETE", [id]) => match zones.remove(id.parse().unwrap()) {
                    true => answer(200, json!({"result": "success", "data": true})),
                    false => absent(),
                },
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Infomaniak>();
}
