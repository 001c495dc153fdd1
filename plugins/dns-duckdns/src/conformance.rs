//! The list of conformance against a mock of the API.

use serde_json::Value;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::DuckDns;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let domain = sent.query("domains").unwrap();
    assert!(!domain.contains('.'), "{domain}");
    // The one value of a domain is that of every name below it; challenges ask for this one.
    let name = format!("_acme-challenge.{domain}.duckdns.org");
    let is_clear = sent.query("clear").as_deref() == Some("true");
    let values = if is_clear { Vec::new() } else { vec![sent.query("txt").unwrap()] };
    zones.replace(&name, &values);
    said("OK")
}

fn said(text: &str) -> http::Response {
    http::Response { body: text.as_bytes().to_vec(), ..answer(200, Value::Null) }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| sent.query("token").as_deref() == Some("{{secret:token}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.unauthorized = || said("KO");
    case.name = |n| format!("_acme-challenge.name{n}.duckdns.org");
    case.slots = Some(1);
    case.asks_for_zones = false;
    case.run::<DuckDns>();
}
