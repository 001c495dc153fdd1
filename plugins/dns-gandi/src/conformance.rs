//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Gandi;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(3).collect();
    let absent =
        || answer(404, json!({"cause": "Not Found", "code": 404, "message": "no such thing"}));
    match (sent.method.as_str(), &path[..]) {
        (_, [zone, ..]) if !zones.has(zone) => absent(),
        ("GET", [zone]) => answer(200, json!({"fqdn": zone})),
        ("GET", [zone, "records", name, "TXT"]) => {
            // This API always quotes.
            let records = zones.txt(&absolute(name, zone));
            let values: Vec<_> =
                records.iter().map(|it| witgate_sdk::dns::quote_txt(&it.value)).collect();
            if values.is_empty() {
                absent()
            } else {
                answer(200, json!({"rrset_ttl": 700, "rrset_values": values}))
            }
        }
        ("PUT", [zone, "records", name, "TXT"]) => {
            let (name, body) = (absolute(name, zone), sent.json());
            // That of the list, or the least that there is; a set that is there keeps its own.
            let ttls: &[u64] = if zones.txt(&name).is_empty() { &[3600, 300] } else { &[700] };
            assert!(ttls.contains(&body["rrset_ttl"].as_u64().unwrap()), "{body}");
            let values = body["rrset_values"].as_array().unwrap().iter();
            let values: Vec<_> = values.map(|it| unquote_txt(it.as_str().unwrap())).collect();
            zones.replace(&name, &values);
            answer(201, json!({"message": "DNS Record Created"}))
        }
        ("DELETE", [zone, "records", name, "TXT"]) => {
            zones.replace(&absolute(name, zone), &[]);
            answer(204, json!(null))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Gandi>();
}
