//! The list of conformance against a mock of the API.

use serde_json::json;
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::http;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::testing::{Sent, answer};

use super::Cloudflare;

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(2).collect();
    let success = |result| answer(200, json!({"success": true, "errors": [], "result": result}));
    let refusal = |status, code: u32| {
        answer(status, json!({"success": false, "errors": [{"code": code}], "result": null}))
    };
    let entry = |id: u64, name: &str, content: &str| json!({"id": id.to_string(), "name": name, "type": "TXT", "content": content});
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["zones"]) => {
            let name = sent.query("name").unwrap();
            let id = format!("id-of-{name}");
            success(if zones.has(&name) { json!([{"id": id, "name": name}]) } else { json!([]) })
        }
        (_, ["zones", id, ..]) if !zones.has(id.trim_start_matches("id-of-")) => refusal(404, 7003),
        ("GET", ["zones", _, "dns_records"]) => {
            assert_eq!(sent.query("type").as_deref(), Some("TXT"));
            let records = zones.txt(&sent.query("name").unwrap());
            let show = |value: &str| zones.show(value);
            let all = records.iter().map(|it| entry(it.id, &it.name, &show(&it.value)));
            success(all.collect())
        }
        ("POST", ["zones", id, "dns_records"]) => {
            let body = sent.json();
            let (name, content) =
                (body["name"].as_str().unwrap(), body["content"].as_str().unwrap());
            assert_eq!(zones.zone_of(name), id.strip_prefix("id-of-"));
            assert_eq!(body["type"], "TXT");
            let value = unquote_txt(content);
            if zones.txt(name).iter().any(|record| record.value == value) {
                return refusal(400, 81058);
            }
            let id = zones.add(name, &value);
            success(entry(id, name, content))
        }
        ("DELETE", ["zones", _, "dns_records", id]) => match zones.remove(id.parse().unwrap()) {
            true => success(json!({"id": id})),
            false => refusal(404, 81044),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized =
        |sent: &Sent| sent.header("authorization") == Some("Bearer {{secret:token}}");
    Case::new(include_str!("../plugin.yaml"), api, is_authorized).run::<Cloudflare>();
}
