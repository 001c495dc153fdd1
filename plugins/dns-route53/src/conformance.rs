//! The list of conformance against a mock of the API.

use witgate_sdk::dns::{quote_txt, unquote_txt};
use witgate_sdk::http;
use witgate_sdk::testing::Sent;
use witgate_sdk::testing::conformance::{Case, Zones};
use witgate_sdk::xml::{elements, escape, text, unescape};

use super::Route53;

fn xml(status: u16, body: &str) -> http::Response {
    let headers = vec![("content-type".to_owned(), "text/xml".to_owned())];
    let body = format!("<?xml version=\"1.0\"?>\n{body}").into_bytes();
    http::Response { status, headers, body }
}

fn refusal(status: u16, code: &str) -> http::Response {
    xml(
        status,
        &format!(
            "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>{code}</Code><Message>no: {code}</Message></Error></ErrorResponse>"
        ),
    )
}

fn api(sent: &Sent, zones: &mut Zones) -> http::Response {
    let path = sent.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).skip(1).collect();
    match (sent.method.as_str(), &path[..]) {
        ("GET", ["hostedzonesbyname"]) => {
            let wanted = sent.query("dnsname").unwrap();
            let wanted = wanted.trim_end_matches('.');
            // In order, from that name on; a private zone of the same name comes first.
            let mut names = zones.names();
            names.sort();
            let zone = |id: &str, name: &str, is_private: bool| {
                format!(
                    "<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}.</Name><Config><PrivateZone>{is_private}</PrivateZone></Config></HostedZone>"
                )
            };
            let after = names.iter().filter(|name| name.as_str() >= wanted).take(9);
            let all: String = after.map(|name| zone(&id_of(name), name, false)).collect();
            let private =
                if zones.has(wanted) { zone("PRIVATE", wanted, true) } else { String::new() };
            xml(
                200,
                &format!(
                    "<ListHostedZonesByNameResponse xmlns=\"x\"><HostedZones>{private}{all}</HostedZones><IsTruncated>false</IsTruncated></ListHostedZonesByNameResponse>"
                ),
            )
        }
        ("GET", ["change", id]) => xml(
            200,
            &format!(
                "<GetChangeResponse><ChangeInfo><Id>/change/{id}</Id><Status>INSYNC</Status></ChangeInfo></GetChangeResponse>"
            ),
        ),
        (_, ["hostedzone", id, "rrset"])
            if !zones.names().iter().any(|zone| id_of(zone) == *id) =>
        {
            refusal(404, "NoSuchHostedZone")
        }
        ("GET", [_, _, "rrset"]) => {
            let name = sent.query("name").unwrap();
            // This API always quotes. Where there is nothing, it goes on with what comes next.
            let set = |name: &str, values: &[String]| {
                let values: String = values
                    .iter()
                    .map(|it| {
                        format!(
                            "<ResourceRecord><Value>{}</Value></ResourceRecord>",
                            escape(&quote_txt(it))
                        )
                    })
                    .collect();
                format!(
                    "<ResourceRecordSet><Name>{name}</Name><Type>TXT</Type><TTL>700</TTL><ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
                )
            };
            let values: Vec<String> =
                zones.txt(name.trim_end_matches('.')).into_iter().map(|it| it.value).collect();
            let set = if values.is_empty() {
                set("next.example.com.", &["other".to_owned()])
            } else {
                set(&name, &values)
            };
            xml(
                200,
                &format!(
                    "<ListResourceRecordSetsResponse xmlns=\"x\"><ResourceRecordSets>{set}</ResourceRecordSets></ListResourceRecordSetsResponse>"
                ),
            )
        }
        ("POST", [_, _, "rrset"]) => {
            let body = String::from_utf8(sent.body.clone()).unwrap();
            assert_eq!(text(&body, "Type").as_deref(), Some("TXT"));
            let name = text(&body, "Name").unwrap();
            let name = name.strip_suffix('.').unwrap();
            let values: Vec<String> =
                elements(&body, "Value").into_iter().map(|it| unquote_txt(&unescape(it))).collect();
            let before: Vec<String> = zones.txt(name).into_iter().map(|it| it.value).collect();
            match text(&body, "Action").as_deref() {
                Some("UPSERT") => zones.replace(name, &values),
                // Exactly as it is, or nothing happens.
                Some("DELETE")
                    if before != values || text(&body, "TTL").as_deref() != Some("700") =>
                {
                    return refusal(400, "InvalidChangeBatch");
                }
                Some("DELETE") => zones.replace(name, &[]),
                other => panic!("{other:?}"),
            }
            xml(
                200,
                "<ChangeResourceRecordSetsResponse><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status></ChangeInfo></ChangeResourceRecordSetsResponse>",
            )
        }
        other => panic!("{other:?}"),
    }
}

fn id_of(zone: &str) -> String {
    format!("Z{}", zone.to_ascii_uppercase().replace(['.', '-'], "0"))
}

fn case() -> Case {
    let is_authorized = |sent: &Sent| sent.header("authorization") == Some("{{sign:aws}}");
    let mut case = Case::new(include_str!("../plugin.yaml"), api, is_authorized);
    case.config = serde_json::json!({});
    case.unauthorized = || refusal(403, "SignatureDoesNotMatch");
    case
}

#[test]
fn it_conforms() {
    case().run::<Route53>();
}

#[test]
fn a_change_is_waited_for() {
    use witgate_sdk::dns::{DnsSolver, Zone};

    let zone = Zone { name: "example.com".to_owned(), handle: "Z1".to_owned() };
    let poll = |status: &'static str, handle: &str| {
        let server = move |_: &Sent| Ok(xml(200, &format!("<R><Status>{status}</Status></R>")));
        witgate_sdk::testing::with_server(server, || Route53 { zone: None }.poll(&zone, handle))
    };
    assert_eq!(poll("PENDING", "C1"), Ok(Some(5)));
    assert_eq!(poll("INSYNC", "C1"), Ok(None));
    assert_eq!(poll("PENDING", ""), Ok(None));
}

#[test]
fn refusals_have_their_codes() {
    use witgate_sdk::dns::DnsSolver;

    let plugin: Route53 = witgate_sdk::testing::configure(serde_json::json!({})).unwrap();
    for (status, code, wanted) in [
        (403, "AccessDenied", "forbidden"),
        (400, "Throttling", "rate-limited"),
        (400, "PriorRequestNotComplete", "conflict"),
        (403, "InvalidClientTokenId", "auth"),
    ] {
        let server = move |_: &Sent| Ok(refusal(status, code));
        let names = ["example.com".to_owned()];
        let failure =
            witgate_sdk::testing::with_server(server, || plugin.find_zone(&names)).unwrap_err();
        assert_eq!(failure.code, wanted);
        assert!(failure.message.contains(&format!("no: {code}")), "{}", failure.message);
    }
}
