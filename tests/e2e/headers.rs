//! Promise: fields for one hop stay on that hop (RFC 9110, section 7.6.1), and what the application
//! reads about the client comes from us, unless a trusted proxy says it.

use crate::harness::client::{get, with};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_for_one_hop_stay_on_that_hop() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(YAML).await;
    let client = gateway.client().await;
    let mut request = get("app.localhost", "/");
    for (name, value) in [
        ("connection", "x-private, keep-alive"),
        ("x-private", "for the next hop alone"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers, gzip"),
        ("x-public", "one"),
        ("x-public", "two"),
        ("cookie", "a=1"),
    ] {
        request = with(request, name, value);
    }
    let seen = client.send(request).await.json();
    for name in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(field(&seen, name).is_empty(), "{name} in {seen}");
    }
    assert!(!field(&seen, "te").iter().any(|value| value.contains("gzip")), "{seen}");
    assert_eq!(field(&seen, "x-public"), ["one", "two"]);
    assert_eq!(field(&seen, "cookie"), ["a=1"]);

    for mut http in
        [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
    {
        let answer = http.send(get("app.localhost", "/hop")).await.unwrap();
        for name in ["x-private", "keep-alive"] {
            assert!(!answer.headers.contains_key(name), "{name} in {answer:?}");
        }
        assert_eq!(answer.header("x-public"), "for all");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cannot_speak_for_others() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(YAML).await;
    let client = gateway.client().await.from("127.0.0.2");
    for mut http in
        [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
    {
        let mut request = get("app.localhost", "/who");
        for (name, value) in [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "evil.example"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6;proto=gopher;host=evil.example"),
        ] {
            request = with(request, name, value);
        }
        let seen = http.send(request).await.unwrap().json();
        assert_eq!(field(&seen, "x-forwarded-for"), ["127.0.0.2"]);
        assert_eq!(field(&seen, "x-forwarded-proto"), ["https"]);
        assert_eq!(field(&seen, "x-forwarded-host"), ["app.localhost"]);
        let forwarded = field(&seen, "forwarded").join(", ");
        for part in ["for=127.0.0.2", "proto=https", "host=\"app.localhost\""] {
            assert!(forwarded.contains(part), "{part} in {forwarded}");
        }
        for spoofed in ["6.6.6.6", "7.7.7.7", "gopher", "evil.example"] {
            assert!(!seen.to_string().contains(spoofed), "{spoofed} in {seen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = format!("{YAML}trusted-proxies: [127.0.0.2/32]\n");
    gateway.set("origin", origin.port).start(&yaml).await;
    let client = gateway.client().await;
    let request = || with(get("app.localhost", "/trusted"), "x-forwarded-for", "192.0.2.7");
    let seen = client.clone().from("127.0.0.2").send(request()).await.json();
    assert_eq!(field(&seen, "x-forwarded-for"), ["192.0.2.7, 127.0.0.2"]);
    assert_eq!(gateway.accessed("/trusted").await["client"], "192.0.2.7");
    let seen = client.from("127.0.0.3").send(request()).await.json();
    assert_eq!(field(&seen, "x-forwarded-for"), ["127.0.0.3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_exchange_has_an_id_of_its_own() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(YAML).await;
    let client = gateway.client().await;
    let mut http = client.h1("app.localhost").await.unwrap();
    let mut ids = Vec::new();
    for number in 0..3 {
        let path = format!("/id/{number}");
        let request = with(get("app.localhost", &path), "x-request-id", "chosen-by-a-stranger");
        let seen = http.send(request).await.unwrap().json();
        let [id] = &field(&seen, "x-request-id")[..] else { panic!("not one id in {seen}") };
        assert_ne!(id, "chosen-by-a-stranger");
        assert_eq!(gateway.accessed(&path).await["id"].as_str(), Some(&id[..]));
        ids.push(id.clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
}
