//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Netcup;

fn reply(status: &str, code: u32, data: serde_json::Value) -> http::Response {
    answer(
        200,
        json!({"status": status, "statuscode": code, "shortmessage": "in short", "longmessage": "at length", "responsedata": data}),
    )
}

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    assert!(sent.url.ends_with("/endpoint.php?JSON"));
    let body = sent.json();
    let param = &body["param"];
    let zone = param["domainname"].as_str().unwrap();
    if !zones.has(zone) {
        return reply("error", 5029, json!(""));
    }
    match body["action"].as_str().unwrap() {
        "infoDnsZone" => reply("success", 2000, json!({"name": zone, "ttl": "86400"})),
        "infoDnsRecords" => {
            let all = zones.below(zone).into_iter().map(|(relative, it)| {
                let host = if relative.is_empty() { "@" } else { &relative };
                json!({"id": it.id.to_string(), "hostname": host, "type": "TXT", "priority": "0", "destination": zones.show(&it.value), "deleterecord": false, "state": "yes"})
            });
            let mut all: Vec<_> = all.collect();
            all.push(json!({"id": "0", "hostname": "www", "type": "A", "priority": "0", "destination": "192.0.2.1", "deleterecord": false, "state": "yes"}));
            reply("success", 2000, json!({"dnsrecords": all}))
        }
        "updateDnsRecords" => {
            for record in param["dnsrecordset"]["dnsrecords"].as_array().unwrap() {
                assert_eq!(record["type"], "TXT");
                let name = absolute(record["hostname"].as_str().unwrap(), zone);
                if record["deleterecord"] == true {
                    zones.remove(record["id"].as_str().unwrap().parse().unwrap());
                } else {
                    zones.add(&name, &unquote_txt(record["destination"].as_str().unwrap()));
                }
            }
            reply("success", 2000, json!({"dnsrecords": []}))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| {
        let param = &sent.json()["param"];
        param["customernumber"] == "{{secret:customer}}"
            && param["apikey"] == "{{secret:key}}"
            && param["apisessionid"] == "{{token:session}}"
    };
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.unauthorized = || reply("error", 4011, json!(""));
    case.run::<Netcup>();
}
