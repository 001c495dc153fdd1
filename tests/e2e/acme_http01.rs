//! Promise: a certificate over ACME by HTTP-01, asked for once and kept.

use crate::harness::client::{Client, get};
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, SOON, port};

const YAML: &str = "
certificates:
  contact: ops@example.com
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  challenge: http-01
sites:
  - hosts: [app.example.com]
    routes: [{respond: {status: 200, body: app}}]
  - hosts: [www.example.com]
    routes: [{respond: {status: 200, body: www}}]
  - hosts: [app.localhost]
    routes: [{respond: {status: 200, body: local}}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_asked_for_once_and_kept() {
    let mut gateway = Gateway::new();
    // Nothing listens where Pebble would look for TLS-ALPN-01.
    let pebble = Pebble::start(&Options::new(gateway.http, port())).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).start(YAML).await;
    // Others serve while the order runs.
    let local = gateway.client().await;
    assert_eq!(local.get("app.localhost", "/").await.text(), "local");

    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let first = client.certified("app.example.com", LATER).await;
    assert_eq!(first.names, ["app.example.com"]);
    let other = client.certified("www.example.com", LATER).await;
    assert_eq!(client.get("app.example.com", "/").await.text(), "app");
    assert_eq!(client.get("www.example.com", "/").await.text(), "www");

    let mut http = Client::new(gateway.http).plain().await.unwrap();
    let stale = get("app.example.com", "/.well-known/acme-challenge/unknown");
    assert!(matches!(http.send(stale).await.unwrap().status, 404 | 308));

    let issued = pebble.issued();
    gateway.restart().await;
    assert_eq!(client.certified("app.example.com", SOON).await, first);
    assert_eq!(client.certified("www.example.com", SOON).await, other);
    let mark = gateway.mark();
    gateway.hangup();
    gateway.logged(mark, &["generation", "serving"]).await;
    assert_eq!(client.certified("app.example.com", SOON).await, first);
    assert_eq!(pebble.issued(), issued, "neither a restart nor a reload orders anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_and_hurts_nobody_else() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    gateway.file("pebble.pem", &pebble.api_root);
    let yaml = YAML.replace("www.example.com", "blocked.org");
    gateway.set("directory", pebble.directory()).start(&yaml).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified("app.example.com", LATER).await;
    let line = gateway.logged_within(0, &["blocked.org", "rejectedIdentifier"], LATER).await;
    assert!(line.contains("127.0.0.1"), "the log names the issuer: {line}");
    assert!(client.alert("blocked.org").await.is_some());
    assert_eq!(client.get("app.example.com", "/").await.text(), "app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_is_away_is_waited_for() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    let (directory, roots) = (pebble.directory(), pebble.api_root.clone());
    drop(pebble);
    gateway.file("pebble.pem", &roots);
    gateway.set("directory", directory).start(YAML).await;
    gateway.logged_within(0, &["app.example.com", "127.0.0.1"], LATER).await;
    let local = gateway.client().await;
    assert_eq!(local.get("app.localhost", "/").await.text(), "local");
    assert!(local.alert("app.example.com").await.is_some());
}
