//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};

use super::Linode;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(1).collect();
    let absent = || answer(404, json!({"errors": [{"reason": "Not found"}]}));
    // The id of a zone is its name backwards, in numbers that JSON can hold.
    let id_of =
        |zone: &str| zone.bytes().fold(7_u64, |id, byte| id * 31 % 1_000_007 + u64::from(byte));
    let zone_of = |zones: &Zones, id: &str| {
        let names =
            ["example.com", "example.co.uk", "sub.example.org", "example.org", "acme.example.net"];
        let found = names.into_iter().find(|name| id_of(name).to_string() == id);
        found.filter(|name| zones.has(name))
    };
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["domains"]) => {
            let filter: serde_json::Value =
                serde_json::from_str(sent.header("x-filter").unwrap()).unwrap();
            let name = filter["domain"].as_str().unwrap();
            let found = zones.has(name).then(|| json!({"id": id_of(name), "domain": name}));
            answer(200, json!({"data": found.into_iter().collect::<Vec<_>>(), "pages": 1}))
        }
        (method, ["domains", id, "records", rest @ ..]) => {
            let Some(zone) = zone_of(zones, id) else { return absent() };
            match (method, rest) {
                ("GET", []) => {
                    // Two pages, with one record on each that is none of ours.
                    let other =
                        json!({"id": 9999, "name": "www", "type": "A", "target": "192.0.2.1"});
                    let mut data = vec![other];
                    let is_last = sent.query("page").as_deref() == Some("2");
                    for name in
                        ["_acme-challenge", "_acme-challenge.xn--bcher-kva", "example-com", ""]
                            .into_iter()
                            .map(str::to_owned)
                            .chain((1..10).map(|n| format!("_acme-challenge.n{n}")))
                            .filter(|_| is_last)
                    {
                        let records = zones.txt(&absolute(&name, zone));
                        data.extend(records.iter().map(|it| {
                            json!({"id": it.id, "name": name, "type": "TXT", "target": zones.show(&it.value)})
                        }));
                    }
                    answer(200, json!({"data": data, "pages": 2}))
                }
                ("POST", []) => {
                    let body = sent.json();
                    assert_eq!(body["type"], "TXT");
                    let name = absolute(body["name"].as_str().unwrap(), zone);
                    let id = zones.add(&name, &unquote_txt(body["target"].as_str().unwrap()));
                    answer(200, json!({"id": id}))
                }
                ("DELETE", [id]) => match zones.remove(id.parse().unwrap()) {
                    true => answer(200, json!({})),
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
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Linode>();
}
