//! Promise: one access record per exchange, as JSON or text, with what an operator looks for and
//! without what must not be kept.

use crate::harness::client::{get, request};
use crate::harness::websocket::WebSocket;
use crate::harness::{Gateway, Origin, RustOrigin, SOON, until};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_has_every_field() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(YAML).await;
    let client = gateway.client().await.from("127.0.0.2");
    let mut http = client.h2("app.localhost").await.unwrap();
    http.send(get("app.localhost", "/seen?x=1")).await.unwrap();
    let record = gateway.accessed("/seen?x=1").await;
    assert_eq!(record["client"], "127.0.0.2");
    assert_eq!(record["method"], "GET");
    assert_eq!(record["host"], "app.localhost");
    assert_eq!(record["status"], 200);
    assert_eq!(record["upstream"], "app");
    assert!(record["id"].as_str().is_some_and(|id| id.len() > 8), "{record}");
    assert!(record["time"].as_str().is_some_and(|time| time.starts_with("20")), "{record}");
    assert!(record["duration_ms"].as_f64().is_some_and(|time| time > 0.0), "{record}");
    assert!(record.get("fault").is_none_or(serde_json::Value::is_null), "{record}");

    http.send(request("POST", "app.localhost", "/status/404", "")).await.unwrap();
    assert_eq!(gateway.accessed("/status/404").await["status"], 405);

    let mut socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
    socket.close(1000, "").await.unwrap();
    socket.read().await.unwrap();
    drop(socket);
    assert_eq!(gateway.accessed("/ws").await["status"], 101);

    let per_exchange = gateway.access().len();
    assert_eq!(per_exchange, 3, "{:?}", gateway.access());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_a_line_and_off_is_silence() {
    let origin = RustOrigin::h1().await;
    for (access, lines) in [("text", 1), ("off", 0)] {
        let mut gateway = Gateway::new();
        let yaml = format!("log: {{level: info, access: {access}, format: text}}\n{YAML}");
        gateway.set("origin", origin.port).start(&yaml).await;
        let client = gateway.client().await;
        assert_eq!(client.get("app.localhost", "/plain-text").await.status, 200);
        gateway.terminate();
        assert!(gateway.end().await.success());
        until("the last line", SOON, || {
            let found = gateway.process().out.mark() == lines;
            std::future::ready(found.then_some(()))
        })
        .await;
        if lines == 1 {
            let line = gateway.process().out.text();
            for word in ["GET", "/plain-text", "200", "app.localhost", "127.0.0.1"] {
                assert!(line.contains(word), "{word} in {line}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_cannot_forge_a_line() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = format!("log: {{level: info, access: text, format: text}}\n{YAML}");
    gateway.set("origin", origin.port).start(&yaml).await;
    let client = gateway.client().await;
    client.get("app.localhost", "/%0aGET%20/forged%1b").await;
    client.get("app.localhost", "/last").await;
    // A line is written when its body has gone out, which the client need not wait for.
    gateway.process().out.wait(0, &["/last"], SOON).await;
    gateway.process().out.wait(0, &["forged"], SOON).await;
    let lines = gateway.process().out.after(0);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
}
