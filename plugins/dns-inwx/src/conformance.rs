//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::Inwx;

fn reply(code: u32, data: serde_json::Value) -> http::Response {
    answer(200, json!({"code": code, "msg": "so it is", "resData": data}))
}

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let body = sent.json();
    let params = &body["params"];
    let text = |key: &str| params[key].as_str().unwrap().to_owned();
    match body["method"].as_str().unwrap() {
        "nameserver.deleteRecord" => match zones.remove(params["id"].as_u64().unwrap()) {
            true => answer(200, json!({"code": 1000, "msg": "done"})),
            false => reply(2303, json!(null)),
        },
        _ if !zones.has(&text("domain")) => reply(2303, json!(null)),
        "nameserver.info" if text("type") == "SOA" => {
            reply(1000, json!({"domain": text("domain"), "count": 1}))
        }
        "nameserver.info" => {
            let name = text("name");
            let all = zones.txt(&name).into_iter().map(|it| {
                json!({"id": it.id, "name": name, "type": "TXT", "content": zones.show(&it.value), "ttl": 300})
            });
            reply(1000, json!({"record": all.collect::<Vec<_>>()}))
        }
        "nameserver.createRecord" => {
            assert_eq!(text("type"), "TXT");
            let (name, value) = (text("name"), unquote_txt(&text("content")));
            if zones.txt(&name).iter().any(|record| record.value == value) {
                return reply(2302, json!(null));
            }
            reply(1000, json!({"id": zones.add(&name, &value)}))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.header("cookie") == Some("domrobot={{token:session}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.unauthorized = || reply(2200, json!(null));
    case.run::<Inwx>();
}
