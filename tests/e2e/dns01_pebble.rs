//! Promise: a certificate for a name and its wildcard over ACME by DNS-01, solved by a plugin at a
//! real PowerDNS from which the CA resolves; and a solver cannot steal what it is given to use.

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::powerdns::PowerDns;
use crate::harness::{Gateway, LATER, RustOrigin, until};

/// What a gateway needs to solve DNS-01 at a [`PowerDns`]; `@site@` is the list of sites.
pub const YAML: &str = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  challenge: {dns-01: powerdns}
  resolvers: [\"127.0.0.1:@dns@\"]
  propagation: {port: @dns@}
plugins:
  powerdns:
    component: \"@plugins@/dns-powerdns.wasm\"
    config: {api: \"http://127.0.0.1:@api@\"}
    secrets: {key: {env: POWERDNS_API_KEY}}
    grants: {http: [\"http://127.0.0.1:@api@/api/v1/*\"]}
sites:
@sites@
";

/// A gateway, not started, that has what [`YAML`] needs, with its CA and DNS server.
pub async fn prepared(options: impl FnOnce(&mut Options)) -> (Gateway, Pebble, PowerDns) {
    let dns = PowerDns::start().await;
    let mut gateway = Gateway::new();
    let mut how = Options::new(gateway.http, gateway.https);
    how.dns = Some(dns.dns);
    options(&mut how);
    let pebble = Pebble::start(&how).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("dns", dns.dns).set("api", dns.api);
    gateway.env("POWERDNS_API_KEY", &dns.key);
    (gateway, pebble, dns)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_and_its_wildcard_in_one_certificate() {
    let (mut gateway, pebble, dns) = prepared(|how| how.reuses = false).await;
    dns.zone("example.com").await;
    // Somebody else's value at the same name: it is not ours to remove.
    dns.add_txt("example.com", "_acme-challenge.example.com", "kept").await;
    let sites = "  - hosts: [example.com, \"*.example.com\"]
    routes: [{respond: {status: 200, body: wild}}]";
    gateway.set("sites", sites).start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("example.com", LATER).await;
    assert_eq!(leaf.names, ["*.example.com", "example.com"]);
    assert_eq!(client.certified("any.example.com", LATER).await, leaf);
    assert_eq!(client.get("any.example.com", "/").await.text(), "wild");
    let kept = [("_acme-challenge.example.com.".to_owned(), "\"kept\"".to_owned())];
    until("the challenge records to be removed", LATER, async || {
        (dns.txt("example.com").await == kept).then_some(())
    })
    .await;
    assert!(!gateway.log().contains(&dns.key), "a secret in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_prove_one_name_at_once_each_at_a_name_of_its_account() {
    let (mut first, pebble, dns) = prepared(|how| how.reuses = false).await;
    dns.zone("example.com").await;
    let sites = "  - hosts: [example.com, \"*.example.com\"]
    routes: [{respond: {status: 200, body: wild}}]";
    let yaml = YAML.replace("dns-01: powerdns", "dns-account-01: powerdns");
    let mut second = Gateway::new();
    second.file("pebble.pem", &pebble.api_root);
    second.set("directory", pebble.directory()).set("dns", dns.dns).set("api", dns.api);
    second.env("POWERDNS_API_KEY", &dns.key);
    for gateway in [&mut first, &mut second] {
        gateway.set("sites", sites).configure(&yaml);
        gateway.spawn();
    }
    let root = pebble.root().await;
    let mut labels = Vec::new();
    for gateway in [&mut first, &mut second] {
        gateway.ready().await;
        let client = Client::new(gateway.https).trusting(&root);
        let leaf = client.certified("any.example.com", LATER).await;
        assert_eq!(leaf.names, ["*.example.com", "example.com"]);
        let line = gateway.logged(0, &["challenge record written"]).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let name = line["name"].as_str().expect("a name").to_owned();
        let label = name.strip_suffix("._acme-challenge.example.com").expect(&name);
        assert!(label.len() == 17 && label.starts_with('_'), "{label}");
        labels.push(label.to_owned());
    }
    assert_ne!(labels[0], labels[1], "two accounts have one name");
    until("the challenge records to be removed", LATER, async || {
        dns.txt("example.com").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_names_below_one_zone() {
    let (mut gateway, pebble, dns) = prepared(|how| how.reuses = false).await;
    dns.zone("example.com").await;
    let sites = ["a.example.com", "b.deep.example.com", "*.c.example.com"].map(|host| {
        format!("  - hosts: [\"{host}\"]\n    routes: [{{respond: {{status: 200, body: ok}}}}]\n")
    });
    gateway.set("sites", sites.concat()).start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    for name in ["a.example.com", "b.deep.example.com", "x.c.example.com"] {
        client.certified(name, LATER).await;
    }
    until("the challenge records to be removed", LATER, async || {
        dns.txt("example.com").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_told_as_the_provider_says_it() {
    let (mut gateway, _pebble, dns) = prepared(|_| ()).await;
    dns.zone("example.com").await;
    gateway.env("POWERDNS_API_KEY", "not-the-key-of-this-server");
    let sites = "  - hosts: [example.com]\n    routes: [{respond: {status: 200, body: ok}}]\n";
    gateway.set("sites", sites).start(YAML).await;
    let line = gateway.logged_within(0, &["example.com", "powerdns", "auth"], LATER).await;
    assert!(!gateway.log().contains("not-the-key-of-this-server"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_grant_is_named() {
    let (mut gateway, _pebble, dns) = prepared(|_| ()).await;
    dns.zone("example.com").await;
    let sites = "  - hosts: [example.com]\n    routes: [{respond: {status: 200, body: ok}}]\n";
    let yaml = YAML.replace("    grants: {http: [\"http://127.0.0.1:@api@/api/v1/*\"]}\n", "");
    gateway.set("sites", sites).start(&yaml).await;
    let api = format!("http://127.0.0.1:{}", dns.api);
    gateway.logged_within(0, &["powerdns", "grant", &api], LATER).await;
    assert_eq!(dns.txt("example.com").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_solver_is_contained() {
    const SECRET: &str = "s3cret-Value/with+signs";
    for what in ["thief", "elsewhere", "unknown", "panic", "loop"] {
        let provider = RustOrigin::h1().await;
        let (mut gateway, _pebble, dns) = prepared(|_| ()).await;
        dns.zone("example.com").await;
        gateway.env("SOLVER_TOKEN", SECRET).set("provider", provider.port).set("what", what);
        let yaml = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  challenge: {dns-01: hostile}
  resolvers: [\"127.0.0.1:@dns@\"]
  propagation: {port: @dns@}
plugins:
  hostile:
    component: \"@guests@/solver.wasm\"
    config: {url: \"http://127.0.0.1:@provider@\", zone-handle: \"@what@\"}
    secrets: {token: {env: SOLVER_TOKEN}}
    grants: {http: [\"http://127.0.0.1:@provider@/*\"]}
    limits: {solver-deadline: 2s}
sites:
  - hosts: [example.com]
    routes: [{respond: {status: 200, body: ok}}]
  - hosts: [app.localhost]
    routes: [{respond: {status: 200, body: local}}]
";
        gateway.start(yaml).await;
        let words: &[&str] = match what {
            "elsewhere" => &["hostile", "elsewhere.example", "grants"],
            "unknown" => &["hostile", "nobody"],
            "panic" => &["hostile", "solver's own words"],
            "loop" => &["hostile", "limits.solver-deadline"],
            _ => &["hostile", "environment"],
        };
        gateway.logged_within(0, words, LATER).await;
        let local = gateway.client().await;
        assert_eq!(local.get("app.localhost", "/").await.text(), "local");
        if what == "thief" {
            // The provider got it, so it was substituted; the plugin and the log never see it.
            until("the thief's requests", LATER, || {
                let is_sent = provider.requests().iter().any(|r| r.to_string().contains(SECRET));
                std::future::ready(is_sent.then_some(()))
            })
            .await;
        }
        let log = gateway.log() + &gateway.process().out.text();
        assert!(!log.contains(SECRET), "{what}: the secret is in the log");
        gateway.process().assert_running();
    }
}
