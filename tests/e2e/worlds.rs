//! Promise: plugins decide about handshakes before any key is touched, about certificates before any
//! order, and take what has happened off the way of requests; what they do wrong costs what they were
//! asked about and nothing else.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::client::Client;
use crate::harness::collector::Collector;
use crate::harness::guests::guest;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::pki::Ca;
use crate::harness::quic::Quic;
use crate::harness::{Gateway, LATER, SOON, until, within};

const GREETER: &str = "
client-hello: greeter
certificates:
  files:
    - {certificate: @dir@/wild.pem, key: @dir@/wild.key}
    - {certificate: @dir@/other.pem, key: @dir@/other.key}
sites:
  - hosts: [\"*.shop.example\"]
    certificate: files
    routes: [{respond: {body: own}}]
  - hosts: [other.example]
    certificate: files
    routes: [{respond: {body: other}}]
  - hosts: [unused.shop.example]
    passthrough: raw
upstreams:
  raw: {servers: [\"tcp://127.0.0.1:@raw@\"]}
plugins:
  greeter: {component: hello.wasm, on-error: @on-error@}
log: {level: \"info,witgate::listen=debug\", access: json, format: json}
";

async fn greeted(on_error: &str) -> (Gateway, Client) {
    let ca = Ca::new("greeter");
    let mut gateway = Gateway::new();
    for (name, host) in [("wild", "*.shop.example"), ("other", "other.example")] {
        let pair = ca.sign(&[host]);
        gateway.file(&format!("{name}.pem"), pair.certificate);
        gateway.file(&format!("{name}.key"), pair.key);
    }
    gateway.file("hello.wasm", guest("hello"));
    // Takes what comes as it is, and says so.
    let raw = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gateway.set("raw", raw.local_addr().unwrap().port()).set("on-error", on_error);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = raw.accept().await {
            let mut first = [0; 1];
            let _ = stream.read_exact(&mut first).await;
            // 22: a handshake record, so it is the client's own hello.
            let _ = stream.write_all(&[b'r', first[0]]).await;
        }
    });
    gateway.start(GREETER).await;
    let client = Client::new(gateway.https).trusting(&ca.pem);
    (gateway, client)
}

/// The first bytes that come back for a ClientHello of this name.
async fn first_bytes(client: &Client, name: &str) -> Vec<u8> {
    struct Tap(tokio::net::TcpStream, std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl tokio::io::AsyncRead for Tap {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let before = buf.filled().len();
            let polled = std::pin::Pin::new(&mut self.0).poll_read(cx, buf);
            self.1.lock().unwrap().extend(&buf.filled()[before..]);
            polled
        }
    }
    impl tokio::io::AsyncWrite for Tap {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
        }
        fn poll_flush(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
    let seen = std::sync::Arc::default();
    let tap = Tap(client.tcp().await.unwrap(), std::sync::Arc::clone(&seen));
    let _ = client.tls_over(name, tap).await;
    seen.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_decides_about_handshakes_before_any_key_is_touched() {
    let (gateway, client) = greeted("fail-closed").await;
    assert_eq!(client.get("app.shop.example", "/").await.text(), "own");
    assert_eq!(client.get("tell.shop.example", "/").await.text(), "own");
    // Passed through, though its site would have been terminated.
    assert_eq!(first_bytes(&client, "pass.shop.example").await, b"r\x16");
    // With the certificate of another name, which this client does not take for its own.
    let error = client.leaf("as.shop.example").await.unwrap_err();
    assert!(error.contains("other.example"), "{error}");
    // 49 access_denied, 80 internal_error: by the plugin, and where it fails.
    for (name, alert) in [
        ("refuse.shop.example", 49),
        ("number.shop.example", 99),
        ("as-nobody.shop.example", 80),
        ("panic.shop.example", 80),
        ("loop.shop.example", 80),
        ("memory.shop.example", 80),
        ("upstream.shop.example", 80),
    ] {
        assert_eq!(client.alert(name).await, Some(alert), "{name}");
        assert_eq!(client.get("app.shop.example", "/").await.text(), "own", "after {name}");
    }
    // As it says to the log.
    gateway.logged(0, &["transport=tcp", "versions=[\\\"TLSv1.3\\\"", "from=127.0.0.1"]).await;
    gateway.logged(0, &["the plugin's own words", "client-hello.on-client-hello"]).await;
    gateway.logged(0, &["wants the certificate of nobody.example"]).await;
    let calls = "witgate_plugin_calls_total{plugin=\"greeter\",hook=\"on-client-hello\"}";
    assert!(gateway.metric(calls).await >= 18);
    let traps = "witgate_plugin_traps_total{plugin=\"greeter\"}";
    assert_eq!(gateway.metric(traps).await, 4);
    let passed = "witgate_plugin_decisions_total{plugin=\"greeter\",decision=\"pass-through\"}";
    assert_eq!(gateway.metric(passed).await, 1);

    // A reload without it asks nobody.
    gateway.configure(&GREETER.replace("client-hello: greeter\n", ""));
    until("the reload", SOON, async || {
        (client.clone().fresh().alert("refuse.shop.example").await.is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeter_that_may_fail_open_lets_handshakes_go_on() {
    let (_gateway, client) = greeted("fail-open").await;
    for name in ["panic.shop.example", "upstream.shop.example"] {
        assert_eq!(client.get(name, "/").await.text(), "own", "{name}");
    }
    assert_eq!(client.alert("refuse.shop.example").await, Some(49));
}

const OVER_QUIC: &str = "
client-hello: greeter
sites:
  - hosts: [tell.localhost, refuse.localhost, pass.localhost, panic.localhost, as-nobody.localhost]
    routes: [{respond: {body: own}}]
  - hosts: [unused.localhost]
    passthrough: raw
upstreams:
  raw: {servers: [\"tcp://127.0.0.1:@raw@\"]}
plugins:
  greeter: {component: hello.wasm}
log: {level: \"info,witgate::listen=debug\", access: json, format: json}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_decides_about_handshakes_over_quic() {
    let mut gateway = Gateway::new();
    gateway.file("hello.wasm", guest("hello"));
    gateway.set("raw", crate::harness::port()).start(OVER_QUIC).await;
    let mut client = Quic::connect(&gateway, "127.0.0.1", "tell.localhost").await.unwrap();
    let answers = client.ask(json!([{"path": "/"}])).await;
    assert_eq!(answers[0]["text"], "own");
    gateway.logged(0, &["transport=quic", "ja4=q13"]).await;
    for name in ["refuse", "panic", "as-nobody", "pass"] {
        let name = format!("{name}.localhost");
        assert!(Quic::connect(&gateway, "127.0.0.1", &name).await.is_err(), "{name}");
    }
    let mut again = Quic::connect(&gateway, "127.0.0.1", "tell.localhost").await.unwrap();
    assert_eq!(again.ask(json!([{"path": "/"}])).await[0]["text"], "own");
}

const JUDGE: &str = "
certificates:
  issuers:
    - {directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: first}
    - {directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: second}
  challenge: http-01
  policy: judge
  on-demand: {policy: judge, per-domain: 2, per-minute: 100, remember: 1h}
  hooks: [{plugin: judge}]
sites:
  - hosts: [app.example.org]
    routes: [{respond: {body: app}}]
  - hosts: [deny.example.org]
    routes: [{respond: {body: denied}}]
  - hosts: [issuer.example.org]
    routes: [{respond: {body: second}}]
  - hosts: [\"*.customer.org\"]
    certificate: {on-demand: true}
    routes: [{respond: {body: tenant}}]
plugins:
  judge:
    component: policy.wasm
    config: {url: \"http://127.0.0.1:@collector@\"}
    grants: {http: [\"POST http://127.0.0.1:@collector@/*\"]}
    limits: {solver-deadline: 2s}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_says_which_names_get_a_certificate_and_is_told_of_it() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    let collector = Collector::start().await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.file("policy.wasm", guest("policy"));
    gateway.set("directory", pebble.directory()).set("collector", collector.port);
    gateway.start(JUDGE).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified("app.example.org", LATER).await;
    client.certified("issuer.example.org", LATER).await;
    gateway.logged(0, &["asked about app.example.org (configured)", "by http-01"]).await;
    // The one that it named, though the first would have been asked.
    gateway.logged(0, &["certificate issued", "issuer.example.org", "second"]).await;
    let why = "denies it: it is not for sale (request-id: r-7); ask the shop";
    gateway.logged(0, &["deny.example.org", why]).await;
    assert_eq!(client.alert("deny.example.org").await, Some(112));

    // On demand: asked at the first handshake, and what is denied is not asked about again.
    client.certified("ask.customer.org", LATER).await;
    assert_eq!(
        collector.posts_to("/ask").first().map(|post| &*post.body),
        Some("ask.customer.org")
    );
    for name in ["deny.customer.org", "silent.customer.org", "denied.customer.org"] {
        let mark = gateway.mark();
        for _ in 0..3 {
            assert_eq!(client.clone().fresh().alert(name).await, Some(112), "{name}");
        }
        gateway.logged(mark, &[&format!("asked about {name} (on-demand)")]).await;
        let log = gateway.log();
        let asked = log.matches(&format!("asked about {name} ")).count();
        assert_eq!(asked, 1, "{name}");
    }
    // One that fails says nothing, and that is no.
    for name in ["panic.customer.org", "sleep.customer.org"] {
        assert_eq!(client.clone().fresh().alert(name).await, Some(112), "{name}");
    }
    // Bounds hold whatever it says.
    client.certified("one.customer.org", LATER).await;
    assert_eq!(client.clone().fresh().alert("two.customer.org").await, Some(112));
    gateway.logged(0, &["two.customer.org", "per-domain"]).await;

    // It is told of what happened, in order, by name.
    let events = until("the events", LATER, async || {
        let posts = collector.posts_to("/event");
        let events: Vec<Value> =
            posts.iter().map(|post| serde_json::from_str(&post.body).unwrap()).collect();
        let issued = events.iter().filter(|event| event["event"] == "issued").count();
        (issued >= 4 && events.iter().any(|event| event["event"] == "failed")).then_some(events)
    })
    .await;
    let failed = events.iter().find(|event| event["event"] == "failed").unwrap();
    assert_eq!(failed["names"], json!(["deny.example.org"]));
    let denied = "witgate_plugin_decisions_total{plugin=\"judge\",decision=\"deny\"}";
    assert!(gateway.metric(denied).await >= 3);
    assert!(gateway.metric("witgate_plugin_requests_total{plugin=\"judge\"}").await >= 5);
}

const SINK: &str = "
sites:
  - hosts: [app.localhost]
    routes: [{respond: {body: own}}]
plugins:
  shipper:
    component: policy.wasm
    config: {url: \"http://127.0.0.1:@collector@\"}
    grants: {http: [\"POST http://127.0.0.1:@collector@/*\"]}
    limits: {solver-deadline: 2s}
log: {access: off, level: info, format: json, sinks: [shipper]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_are_shipped_in_batches_and_what_nobody_takes_is_counted() {
    let mut gateway = Gateway::new();
    let collector = Collector::start().await;
    gateway.file("policy.wasm", guest("policy"));
    gateway.set("collector", collector.port).start(SINK).await;
    let client = gateway.client().await;
    for n in 0..20 {
        assert_eq!(client.get("app.localhost", &format!("/{n}?secret=x")).await.text(), "own");
    }
    let records = || -> Vec<Value> {
        let posts = collector.posts_to("/records");
        let lines = posts.iter().flat_map(|post| post.body.lines().map(str::to_owned));
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
    };
    let all = until("the records", SOON, async || {
        let all = records();
        (all.len() == 20).then_some(all)
    })
    .await;
    let mut paths: Vec<&str> = all.iter().map(|record| record["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert!(paths.contains(&"/0?secret=x") && paths.contains(&"/19?secret=x"), "{paths:?}");
    assert!(all.iter().all(|record| record["status"] == 200 && record["id"].is_string()));
    // Far fewer requests than records: they gather for a second.
    assert!(collector.posts_to("/records").len() < 20, "{}", collector.posts().len());

    // A collector that does not take it gets it once more, and then it is dropped and counted; nobody
    // waits for that.
    collector.answer(500);
    let before = collector.posts_to("/records").len();
    within("an answer", SOON, client.get("app.localhost", "/lost")).await;
    gateway.logged_within(0, &["dropped what was not taken", "it answers 500"], LATER).await;
    let posts = collector.posts_to("/records");
    assert_eq!(posts.len() - before, 2);
    assert!(posts[before].body.contains("/lost") && posts[before].body == posts[before + 1].body);
    assert_eq!(gateway.metric("witgate_plugin_dropped_total{plugin=\"shipper\"}").await, 1);

    // What waits at the end is handed over before the gateway goes.
    collector.answer(200);
    client.get("app.localhost", "/last").await;
    gateway.terminate();
    assert!(gateway.end().await.success());
    assert!(records().iter().any(|record| record["path"] == "/last"));
}
