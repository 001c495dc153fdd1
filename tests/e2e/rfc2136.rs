//! Promise: DNS-01 at a server of one's own that takes signed updates, without any plugin: BIND, Knot
//! and PowerDNS.

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::powerdns::PowerDns;
use crate::harness::updates::{TSIG_SECRET, UpdateServer};
use crate::harness::{Gateway, LATER, until};

const YAML: &str = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  challenge: {dns-01: own}
  resolvers: [\"127.0.0.1:@dns@\"]
  propagation: {port: @dns@}
  updates:
    own: {server: \"127.0.0.1:@dns@\", key: @key@, secret: {env: ACME_TSIG_KEY}}
sites:
  - hosts: [example.com, \"*.example.com\"]
    routes: [{respond: {status: 200, body: wild}}]
";

async fn gateway(dns: u16, key: &str, secret: &str) -> (Gateway, Pebble) {
    gateway_with(YAML, dns, key, secret).await
}

async fn gateway_with(yaml: &str, dns: u16, key: &str, secret: &str) -> (Gateway, Pebble) {
    let mut gateway = Gateway::new();
    let mut how = Options::new(gateway.http, gateway.https);
    how.dns = Some(dns);
    how.reuses = false;
    let pebble = Pebble::start(&how).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("dns", dns).set("key", key);
    gateway.env("ACME_TSIG_KEY", secret);
    gateway.start(yaml).await;
    (gateway, pebble)
}

/// The name and its wildcard need two values at one name; somebody else's stays there.
async fn certified(dns: u16, values: impl AsyncFn() -> Vec<String>) {
    let (gateway, pebble) = gateway(dns, "acme", TSIG_SECRET).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("example.com", LATER).await;
    assert_eq!(leaf.names, ["*.example.com", "example.com"]);
    until("the challenge records to be removed", LATER, async || {
        (values().await == ["kept"]).then_some(())
    })
    .await;
    assert!(!gateway.log().contains(TSIG_SECRET), "a secret in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bind_takes_updates() {
    let server = UpdateServer::bind().await;
    certified(server.dns, async || server.txt("_acme-challenge.example.com").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_a_record_of_its_own_there() {
    let server = UpdateServer::bind().await;
    let yaml = YAML.replace("dns-01: own", "dns-account-01: own");
    let (gateway, pebble) = gateway_with(&yaml, server.dns, "acme", TSIG_SECRET).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("example.com", LATER).await;
    assert_eq!(leaf.names, ["*.example.com", "example.com"]);
    gateway.logged(0, &["challenge record written", "._acme-challenge.example.com"]).await;
    assert_eq!(server.txt("_acme-challenge.example.com").await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_is_not_told_while_the_dns_tells_another_story() {
    let server = UpdateServer::bind().await;
    // The same zone, with the same answers but for what is new.
    let stale = UpdateServer::bind().await;
    let how = format!("{{port: {}, timeout: 3s}}", stale.dns);
    let yaml = YAML.replace("{port: @dns@}", &how);
    let (gateway, pebble) = gateway_with(&yaml, server.dns, "acme", TSIG_SECRET).await;
    gateway.logged_within(0, &["no certificate", "has 0 of 2 values"], LATER).await;
    until("the challenge records to be removed", LATER, async || {
        (server.txt("_acme-challenge.example.com").await == ["kept"]).then_some(())
    })
    .await;
    let lines = pebble.process.out.after(0);
    assert!(!lines.iter().any(|line| line.contains("POST /chalZ/")), "the CA was told");
    // Once it is asked where the truth is, it does not wait for its pause.
    gateway.configure(YAML);
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified("example.com", LATER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knot_takes_updates() {
    let server = UpdateServer::knot().await;
    certified(server.dns, async || server.txt("_acme-challenge.example.com").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns_takes_updates() {
    let server = PowerDns::start().await;
    server.zone("example.com").await;
    server.add_txt("example.com", "_acme-challenge.example.com", "kept").await;
    server.allow_updates("example.com", "acme", TSIG_SECRET).await;
    let values = async || {
        let all = server.txt("example.com").await.into_iter();
        all.map(|(_, value)| value.trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    certified(server.dns, values).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_taken_is_named() {
    let bind = UpdateServer::bind().await;
    let knot = UpdateServer::knot().await;
    let other = "bm90IHRoZSBzZWNyZXQgb2YgdGhpcyBzZXJ2ZXIuLi4=";
    for (dns, key, secret, word) in [
        (bind.dns, "acme", other, "BADSIG"),
        (knot.dns, "acme", other, "BADSIG"),
        (bind.dns, "nobody", TSIG_SECRET, "BADKEY"),
        (knot.dns, "acme", "not Base64", "Base64"),
    ] {
        let (gateway, _pebble) = gateway(dns, key, secret).await;
        gateway.logged_within(0, &["example.com", "own", word], LATER).await;
        assert!(!gateway.log().contains(secret), "a secret in the log");
    }
    assert_eq!(bind.txt("_acme-challenge.example.com").await, ["kept"]);
    assert_eq!(knot.txt("_acme-challenge.example.com").await, ["kept"]);
}
