//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::HttpReq;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let body = sent.json();
    let name = body["fqdn"].as_str().unwrap().strip_suffix('.').unwrap();
    let value = body["value"].as_str().unwrap();
    match sent.segments().last().unwrap().as_str() {
        "present" if zones.txt(name).iter().any(|record| record.value == value) => {}
        "present" => drop(zones.add(name, value)),
        "cleanup" => drop(zones.remove_value(name, value)),
        other => panic!("{other}"),
    }
    answer(200, json!(null))
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.header("authorization") == Some("{{basic:me:password}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.config = json!({"endpoint": "https://dns.example.internal/", "user": "me"});
    case.asks_for_zones = false;
    case.run::<HttpReq>();
}
