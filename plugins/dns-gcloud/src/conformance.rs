//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::{quote_txt, unquote_txt};
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::Gcloud;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(3).collect();
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["my-project", "managedZones"]) => {
            let name = sent.query("dnsName").unwrap();
            let bare = name.strip_suffix('.').unwrap();
            let zone = |id: String, visibility: &str| json!({"name": id, "dnsName": name, "visibility": visibility});
            let both = [zone("inside".to_owned(), "private"), zone(id_of(bare), "public")];
            answer(200, if zones.has(bare) { json!({"managedZones": both}) } else { json!({}) })
        }
        (_, [_, _, id, ..]) if !zones.names().iter().any(|zone| id_of(zone) == *id) => {
            answer(404, json!({"error": {"code": 404}}))
        }
        ("GET", [_, _, _, "rrsets"]) => {
            assert_eq!(sent.query("type").as_deref(), Some("TXT"));
            let name = sent.query("name").unwrap();
            // This API always quotes.
            let values: Vec<_> = zones
                .txt(name.strip_suffix('.').unwrap())
                .iter()
                .map(|it| quote_txt(&it.value))
                .collect();
            let set = json!({"name": name, "type": "TXT", "ttl": 700, "rrdatas": values});
            answer(200, json!({"rrsets": if values.is_empty() { vec![] } else { vec![set] }}))
        }
        ("GET", [_, _, _, "changes", "7"]) => answer(200, json!({"id": "7", "status": "done"})),
        ("POST", [_, _, _, "changes"]) => {
            let body = sent.json();
            let values = |set: &serde_json::Value| -> Vec<String> {
                let all = set["rrdatas"].as_array().unwrap().iter();
                all.map(|it| unquote_txt(it.as_str().unwrap())).collect()
            };
            let one = body["additions"].get(0).or(body["deletions"].get(0)).unwrap();
            let name = one["name"].as_str().unwrap().strip_suffix('.').unwrap().to_owned();
            let there: Vec<String> = zones.txt(&name).into_iter().map(|it| it.value).collect();
            // What goes has to be named exactly as it is.
            match body["deletions"].get(0) {
                Some(set) if values(set) != there || set["ttl"] != 700 => {
                    return answer(412, json!({"error": {"message": "precondition"}}));
                }
                None if !there.is_empty() => {
                    return answer(409, json!({"error": {"message": "already exists"}}));
                }
                _ => {}
            }
            zones.replace(&name, &body["additions"].get(0).map(values).unwrap_or_default());
            answer(200, json!({"id": "7", "status": "pending"}))
        }
        other => panic!("{other:?}"),
    }
}

fn id_of(zone: &str) -> String {
    format!("zone-{}", zone.replace('.', "-"))
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{token:google}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.config = json!({"project": "my-project"});
    case.run::<Gcloud>();
}

#[test]
fn a_change_is_waited_for() {
    use witgate_sdk::dns::{DnsSolver, Zone};

    let plugin: Gcloud = witgate_sdk::testing::configure(json!({"project": "p"})).unwrap();
    let zone = Zone { name: "example.com".to_owned(), handle: "z".to_owned() };
    let poll = |status: &'static str, handle: &str| {
        let server = move |_: &Sent| Ok(answer(200, json!({"id": "7", "status": status})));
        witgate_sdk::testing::with_server(server, || plugin.poll(&zone, handle))
    };
    assert_eq!(poll("pending", "7"), Ok(Some(3)));
    assert_eq!(poll("done", "7"), Ok(None));
    assert_eq!(poll("pending", ""), Ok(None));
}
