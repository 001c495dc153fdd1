//! Promise: `witgate certs` shows what is and what will be, renews and revokes.

use std::io::{Read as _, Write as _};

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, SOON, output, until};

const YAML: &str = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: pebble}]
  challenge: http-01
sites:
  - hosts: [app.example.com]
    routes: [{respond: {status: 200, body: app}}]
  - hosts: [blocked.org]
    routes: [{respond: {status: 200, body: never}}]
";

async fn certs(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let config = gateway.config().display().to_string();
    let mut all = vec!["certs"];
    all.extend(arguments);
    all.extend(["--config", &config]);
    let output = output(env!("CARGO_BIN_EXE_witgate"), &all, SOON).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

fn metrics(gateway: &Gateway) -> String {
    let socket = gateway.store().join("admin.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("the control socket");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_listed_planned_explained_renewed_and_revoked() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let first = client.certified("app.example.com", LATER).await;
    gateway.logged_within(0, &["blocked.org", "rejectedIdentifier", "policy"], LATER).await;

    let (_, list) = certs(&gateway, &["list"]).await;
    for word in ["NAMES", "app.example.com", "89 d", "blocked.org", "rejectedIdentifier"] {
        assert!(list.contains(word), "{word} in {list}");
    }
    let (_, json) = certs(&gateway, &["list", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["issued_by"], pebble.directory());
    let (_, plan) = certs(&gateway, &["plan", "--days", "90"]).await;
    assert!(plan.contains("pebble") && plan.contains("it is time to renew"), "{plan}");
    let (_, why) = certs(&gateway, &["why", "blocked.org"]).await;
    assert!(why.contains("next try at") && why.contains("rejectedIdentifier"), "{why}");
    let (is_known, why) = certs(&gateway, &["why", "other.example.com"]).await;
    assert!(!is_known && why.contains("other.example.com"), "{why}");
    let text = metrics(&gateway);
    let runway = metric(&text, "witgate_certificate_runway_seconds");
    assert!((89 * 86400..=90 * 86400).contains(&runway), "{runway}");
    assert_eq!(metric(&text, "witgate_certificates_missing"), 1);
    assert_eq!(metric(&text, "witgate_certificates_failing"), 1);

    let next = async |before: &str| {
        until("another certificate", LATER, async || {
            let leaf = client.clone().fresh().leaf("app.example.com").await.ok()?;
            (leaf.serial != before).then_some(leaf)
        })
        .await
    };
    let (is_done, said) = certs(&gateway, &["renew", "app.example.com"]).await;
    assert!(is_done, "{said}");
    let second = next(&first.serial).await;

    let revoke = ["revoke", "app.example.com", "--reason"];
    let (is_done, said) = certs(&gateway, &[&revoke[..], &["boredom"]].concat()).await;
    assert!(!is_done && said.contains("key-compromise"), "{said}");
    let (is_done, said) = certs(&gateway, &[&revoke[..], &["key-compromise"]].concat()).await;
    assert!(is_done, "{said}");
    let third = next(&second.serial).await;
    assert_ne!(third.serial, first.serial);
    let status = pebble.status(&second.serial).await;
    assert!(status.contains("Revoked"), "{status}");
    let (is_done, said) = certs(&gateway, &["revoke", "nothing.example.com"]).await;
    assert!(!is_done && said.contains("nothing.example.com"), "{said}");
}
