//! The list of conformance against a mock of the API.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use witgate_sdk::dns::unquote_txt;
use witgate_sdk::testing::conformance::{Case, Zones, absolute};
use witgate_sdk::testing::{Sent, answer};
use witgate_sdk::{http, xml};

use super::Namecheap;

/// What every domain has that is none of ours.
const OTHERS: &str = "<host HostId=\"1\" Name=\"@\" Type=\"A\" Address=\"192.0.2.1\" MXPref=\"10\" TTL=\"1800\" />\
     <host HostId=\"2\" Name=\"@\" Type=\"MX\" Address=\"mail.example.net.\" MXPref=\"20\" TTL=\"1799\" />";

fn reply(status: &str, inner: &str) -> http::Response {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<ApiResponse Status=\"{status}\" \
         xmlns=\"http://api.namecheap.com/xml.response\">{inner}</ApiResponse>"
    );
    http::Response { body: text.into_bytes(), ..answer(200, Value::Null) }
}

fn refusal(number: u32) -> http::Response {
    reply("ERROR", &format!("<Errors><Error Number=\"{number}\">no</Error></Errors>"))
}

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let form = sent.form();
    let zone = format!("{}.{}", form["SLD"], form["TLD"]);
    if !zones.has(&zone) {
        return refusal(2_019_166);
    }
    let result = |name: &str, inner: &str| {
        reply(
            "OK",
            &format!(
                "<Errors /><CommandResponse Type=\"x\"><{name} Domain=\"{zone}\" EmailType=\"FWD\" IsSuccess=\"true\">{inner}</{name}></CommandResponse>"
            ),
        )
    };
    match form["Command"].as_str() {
        "namecheap.domains.dns.getHosts" => {
            let mut hosts = OTHERS.to_owned();
            for (name, record) in zones.below(&zone) {
                let name = if name.is_empty() { "@" } else { &name };
                let value = xml::escape(&zones.show(&record.value));
                hosts += &format!(
                    "<host HostId=\"{}\" Name=\"{name}\" Type=\"TXT\" Address=\"{value}\" MXPref=\"10\" TTL=\"60\" IsActive=\"true\" />",
                    record.id
                );
            }
            result("DomainDNSGetHostsResult", &hosts)
        }
        "namecheap.domains.dns.setHosts" => {
            assert_eq!(form["EmailType"], "FWD");
            let part = |part: &str, n: usize| form.get(&format!("{part}{n}")).cloned();
            let (mut after, mut others) = (BTreeMap::<String, Vec<String>>::new(), Vec::new());
            for n in 1.. {
                let Some(name) = part("HostName", n) else { break };
                let [kind, value, mx, ttl] =
                    ["RecordType", "Address", "MXPref", "TTL"].map(|it| part(it, n).unwrap());
                match kind.as_str() {
                    "TXT" => {
                        after.entry(absolute(&name, &zone)).or_default().push(unquote_txt(&value))
                    }
                    _ => others.push([name, kind, value, mx, ttl]),
                }
            }
            let wanted = [
                ["@", "A", "192.0.2.1", "10", "1800"],
                ["@", "MX", "mail.example.net.", "20", "1799"],
            ];
            assert_eq!(others, wanted, "the other records stay as they are");
            for (_, record) in zones.below(&zone) {
                zones.remove(record.id);
            }
            for (name, values) in after {
                zones.replace(&name, &values);
            }
            result("DomainDNSSetHostsResult", "")
        }
        other => panic!("{other}"),
    }
}

#[test]
fn it_conforms() {
    let is_authorized = |sent: &Sent| {
        let form = sent.form();
        form["ApiUser"] == "{{secret:user}}"
            && form["UserName"] == "{{secret:user}}"
            && form["ApiKey"] == "{{secret:key}}"
            && form["ClientIp"] == "192.0.2.7"
    };
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.config = json!({"client-ip": "192.0.2.7"});
    case.unauthorized = || refusal(1_011_102);
    case.run::<Namecheap>();
}
