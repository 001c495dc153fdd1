//! The list of conformance against a mock of the API.

use serde_json::{Map, json};
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::AcmeDns;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let body = sent.json();
    let (name, value) = (body["subdomain"].as_str().unwrap(), body["txt"].as_str().unwrap());
    if value.len() != 43 {
        return answer(400, json!({"error": "bad_txt"}));
    }
    let name = format!("{name}.auth.acme-dns.io");
    // The newer one of two values stays.
    let mut values: Vec<_> = zones.txt(&name).into_iter().map(|record| record.value).collect();
    values.push(value.to_owned());
    let newest = values.split_off(values.len().saturating_sub(2));
    zones.replace(&name, &newest);
    answer(200, json!({"txt": value}))
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| {
        sent.header("x-api-user") == Some("{{secret:user}}")
            && sent.header("x-api-key") == Some("{{secret:key}}")
    };
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.unauthorized = || answer(401, json!({"error": "forbidden"}));
    case.name = |n| format!("registration-{n}.auth.acme-dns.io");
    case.slots = Some(2);
    case.can_remove = false;
    case.asks_for_zones = false;
    let registrations: Map<_, _> = (0..10).map(|n| ((case.name)(n), json!({}))).collect();
    case.config = json!({"api": "https://auth.acme-dns.io/", "registrations": registrations});
    case.run::<AcmeDns>();
}
