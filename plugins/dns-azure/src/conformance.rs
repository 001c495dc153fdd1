//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Azure;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    assert_eq!(sent.query("api-version").as_deref(), Some("2018-05-01"));
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let [
        _,
        "sub-1",
        "resourceGroups",
        "dns",
        "providers",
        "Microsoft.Network",
        "dnsZones",
        rest @ ..,
    ] = &path[..]
    else {
        panic!("{path:?}");
    };
    let absent = || answer(404, json!({"error": {"code": "ResourceNotFound"}}));
    // What tells one state of a set from another.
    let tag = |values: &[String]| format!("tag-{}", values.join(","));
    match (sent.method.as_str(), rest) {
        (_, [zone, ..]) if !zones.has(zone) => absent(),
        ("GET", [zone]) => answer(200, json!({"name": zone})),
        (method, [zone, "TXT", owner]) => {
            let name = absolute(owner, zone);
            let there: Vec<String> = zones.txt(&name).into_iter().map(|it| it.value).collect();
            let is_as_read = match (sent.header("if-match"), sent.header("if-none-match")) {
                (Some(given), None) => given == tag(&there),
                (None, Some("*")) => there.is_empty(),
                _ => method == "GET",
            };
            if !is_as_read {
                return answer(412, json!({"error": {"code": "PreconditionFailed"}}));
            }
            match method {
                "GET" if there.is_empty() => absent(),
                "GET" => {
                    let records = there.iter().map(|value| {
                        let pieces: Vec<_> = value
                            .as_bytes()
                            .chunks(255)
                            .map(|it| String::from_utf8_lossy(it))
                            .collect();
                        json!({"value": pieces})
                    });
                    let records: Vec<_> = records.collect();
                    answer(
                        200,
                        json!({"etag": tag(&there), "properties": {"TTL": 700, "TXTRecords": records}}),
                    )
                }
                "PUT" => {
                    let body = sent.json();
                    let values = body["properties"]["TXTRecords"].as_array().unwrap().iter();
                    let values = values.map(|record| {
                        record["value"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|it| it.as_str().unwrap())
                            .collect::<String>()
                    });
                    zones.replace(&name, &values.collect::<Vec<_>>());
                    answer(201, json!({}))
                }
                "DELETE" => {
                    zones.replace(&name, &[]);
                    answer(200, json!(null))
                }
                other => panic!("{other}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{token:azure}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.config = json!({"tenant": "t-1", "subscription": "sub-1", "resource-group": "dns"});
    case.run::<Azure>();
}
