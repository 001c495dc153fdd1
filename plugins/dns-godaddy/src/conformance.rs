//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::GoDaddy;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(2).collect();
    match (sent.method.as_str(), &path[..]) {
        (_, [zone, ..]) if !zones.has(zone) => answer(
            404,
            json!({"code": "UNKNOWN_DOMAIN", "message": "The given domain is not registered"}),
        ),
        ("GET", [_, "records", "NS"]) => answer(200, json!([])),
        ("GET", [zone, "records", "TXT", name]) => {
            let records = zones.shown(&absolute(name, zone));
            let all = records
                .iter()
                .map(|data| json!({"data": data, "name": name, "ttl": 600, "type": "TXT"}));
            answer(200, json!(all.collect::<Vec<_>>()))
        }
        ("PUT", [zone, "records", "TXT", name]) => {
            let body = sent.json();
            let values = body.as_array().unwrap().iter();
            let values: Vec<_> =
                values.map(|it| unquote_txt(it["data"].as_str().unwrap())).collect();
            zones.replace(&absolute(name, zone), &values);
            answer(200, json!(null))
        }
        ("DELETE", [zone, "records", "TXT", name]) => {
            zones.replace(&absolute(name, zone), &[]);
            answer(204, json!(null))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| {
        sent.header("authorization") == Some("sso-key {{secret:key}}:{{secret:secret}}")
    };
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<GoDaddy>();
}

#[test]
fn a_small_account_is_told_apart() {
    use witgate_sdk::dns::DnsSolver;

    let server = |_: &Sent| {
        Ok(answer(
            403,
            json!({"code": "ACCESS_DENIED", "message": "Authenticated user is not allowed access"}),
        ))
    };
    let names = ["example.com".to_owned()];
    let failure =
        witgate_sdk::testing::with_server(server, || GoDaddy.find_zone(&names)).unwrap_err();
    assert_eq!(failure.code, "account-not-entitled");
    assert!(failure.message.contains("not allowed access"), "{}", failure.message);
}
