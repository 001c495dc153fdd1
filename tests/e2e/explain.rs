//! Promise: `witgate explain` says what becomes of a request, without a running gateway.

use std::process::Output;

use crate::harness::{Gateway, SOON, output};

const WITGATE: &str = env!("CARGO_BIN_EXE_witgate");

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    router: router
    filters: [headers, filter]
    routes: [{path: /old, redirect: {to: /new}}, {upstream: web}]
  - hosts: [\"*.example.com\"]
    certificate: {challenge: {dns-01: solver}}
    filters: [hostile]
    upstream: web
  - hosts: [closed.example.org]
    filters: [closed]
    upstream: web
upstreams:
  web: {servers: [http://127.0.0.1:9001, http://127.0.0.1:9002], preserve-host: false}
  api: http://127.0.0.1:9003
plugins:
  router: {component: \"@guests@/router.wasm\"}
  headers:
    component: \"@plugins@/headers.wasm\"
    config: {request: {set: {x-tenant: blue}, remove: [x-debug]}, response: {set: {x-frame-options: DENY}}}
  filter: {component: \"@guests@/filter.wasm\", config: {body: \"yes\"}}
  hostile: {component: \"@guests@/hostile.wasm\", on-error: fail-open}
  closed: {component: \"@guests@/hostile.wasm\"}
  solver: {component: \"@guests@/solver.wasm\", config: {url: \"http://127.0.0.1:1\"}}
trusted-proxies: [10.0.0.0/8]
";

async fn explain(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let config = gateway.config().display().to_string();
    let arguments = [&["explain", "--config", &config], arguments].concat();
    let Output { status, stdout, stderr } = output(WITGATE, &arguments, 2 * SOON).await;
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("UTF-8"))
}

#[tokio::test]
async fn every_step_of_a_request_is_shown() {
    let gateway = Gateway::new();
    gateway.configure(YAML);
    let url = format!("https://app.localhost:{}/rewrite?q=1", gateway.https);
    let fields = ["-H", "x-debug: 1", "-H", "x-forwarded-for: 203.0.113.9", "--from", "10.0.0.1"];
    let (code, out) = explain(&gateway, &[&["GET", &url], &fields[..]].concat()).await;
    assert_eq!(code, Some(0), "{out}");
    for words in [
        "hello       server name app.localhost",
        "handshake   a certificate of the local CA",
        "client      203.0.113.9: 10.0.0.1 is in trusted-proxies",
        "match       the site of line",
        "decide      router route:",
        "to upstream web",
        "method GET -> PUT",
        "authority app.localhost",
        "target /rewrite?q=1 -> /new?from=router",
        "rewrite     headers on-request:",
        "+ x-tenant: blue",
        "- x-debug: 1",
        "rewrite     filter on-request-body:",
        "+ x-complete: yes",
        "send        PUT /new?from=router with host the server's own",
        "to upstream web: one of http://127.0.0.1:9001, http://127.0.0.1:9002",
        "response    headers on-response on a bare 200 OK of an upstream: + x-frame-options: DENY",
    ] {
        assert!(out.contains(words), "{words} in\n{out}");
    }
    // Nothing was started or written.
    assert!(!gateway.store().exists() && !gateway.folder().join("gateway.lock").exists());
}

#[tokio::test]
async fn ends_on_the_way_are_shown() {
    let gateway = Gateway::new();
    gateway.configure(YAML);
    let site = |host: &str, path: &str| format!("https://{host}:{}{path}", gateway.https);
    for (url, wanted) in [
        (site("app.localhost", "/old/x"), &["redirect 308 to /new", "answer      308"][..]),
        (site("app.localhost", "/respond"), &["with 15 bytes", "without asking"]),
        (site("nobody.localhost", "/"), &["none: no site has this name", "421: no site"]),
        (
            site("a.example.com", "/panic"),
            &[
                "by dns-01 through solver",
                "hostile on-request: fails, and the gateway goes on without it",
                "own words",
                "send        GET /panic",
            ],
        ),
        (
            site("closed.example.org", "/panic"),
            &["tls-alpn-01", "answers 500 (on-error: fail-closed)"],
        ),
        (format!("http://app.localhost:{}/", gateway.http), &["a redirect to https://app.loc"]),
        ("https://app.localhost:1/".to_owned(), &["nothing listens on port 1"]),
    ] {
        let (code, out) = explain(&gateway, &[&url]).await;
        assert_eq!(code, Some(0), "{out}");
        for words in wanted {
            assert!(out.contains(words), "{words} in\n{out}");
        }
    }
    let (_, out) = explain(&gateway, &[&site("closed.example.org", "/panic")]).await;
    assert!(!out.contains("send  "), "{out}");
    for wrong in [&["ftp://a/"][..], &["GE T", "https://a/"], &["https://a/", "-H", "nonsense"]] {
        let (code, out) = explain(&gateway, wrong).await;
        assert_eq!(code, Some(1), "{out}");
    }
}

#[tokio::test]
async fn a_server_name_alone_is_explained() {
    let gateway = Gateway::new();
    let pair = crate::harness::pki::Ca::new("A CA").sign(&["*.wild.example.com"]);
    gateway.file("chain.pem", &pair.certificate);
    gateway.file("key.pem", &pair.key);
    gateway.file("clients.pem", &crate::harness::pki::Ca::new("Clients").pem);
    gateway.configure(
        "
certificates:
  files: [{certificate: @dir@/chain.pem, key: @dir@/key.pem}]
sites:
  - hosts: [\"*.wild.example.com\"]
    certificate: files
    routes: [{respond: {status: 200, body: wild}}]
  - hosts: [devices.localhost]
    client-certificates: {roots: [@dir@/clients.pem]}
    routes: [{respond: {status: 200, body: devices}}]
  - hosts: [mail.example.com]
    passthrough: mail
upstreams:
  mail: tcp://127.0.0.1:993
",
    );
    let devices = format!("https://devices.localhost:{}/", gateway.https);
    for (arguments, wanted) in [
        (
            &["--sni", "A.wild.example.com"][..],
            &["server name a.wild.example.com", "has its wildcard", "*.wild.example.com", "200"][..],
        ),
        (&["--sni", "mail.example.com"], &["bytes go unopened to the upstream mail"]),
        (&["--sni", "nobody.example"], &["none: no site has this name"]),
        (&["--sni", "a.wild.example.com", &devices], &["devices.localhost asks for", "421"]),
        (&["--sni", "devices.localhost", &devices], &["has to show a certificate"]),
    ] {
        let (code, out) = explain(&gateway, arguments).await;
        assert_eq!(code, Some(0), "{out}");
        for words in wanted {
            assert!(out.contains(words), "{words} in\n{out}");
        }
    }
}
