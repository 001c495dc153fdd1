//! Promise: on SIGTERM the gateway takes nothing new, ends what is open, and then ends itself.

use std::time::Instant;

use crate::harness::client::get;
use crate::harness::websocket::WebSocket;
use crate::harness::{Gateway, Origin, RustOrigin, SOON, until};

const YAML: &str = "
limits: {drain: @drain@}
sites:
  - hosts: [app.localhost]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_exchanges_end_well() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).set("drain", "20s").start(YAML).await;
    let client = gateway.client().await;
    let mut idle = client.h1("app.localhost").await.unwrap();
    assert_eq!(idle.send(get("app.localhost", "/")).await.unwrap().status, 200);
    let connections =
        [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()];
    let mut slow = tokio::task::JoinSet::new();
    for mut http in connections {
        slow.spawn(async move { http.send(get("app.localhost", "/slow?ms=2000")).await });
    }
    until("the slow requests to reach the application", SOON, || {
        std::future::ready((origin.requests().len() == 3).then_some(()))
    })
    .await;
    gateway.terminate();
    until("new connections to be refused", SOON, async || client.tcp().await.err()).await;
    assert_eq!(slow.len(), 2);
    while let Some(answer) = slow.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    assert!(gateway.end().await.success());
    assert!(idle.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_not_waited_for_without_end() {
    let (never, application) = (RustOrigin::h1().await, Origin::start().await);
    let mut gateway = Gateway::new();
    let yaml = YAML.replace(
        "    routes: [{upstream: app}]",
        "    routes: [{upstream: app}, {exact: /never, upstream: never}]",
    ) + "  never: http://127.0.0.1:@never@\n";
    gateway.set("origin", application.port).set("never", never.port).set("drain", "500ms");
    gateway.start(&yaml).await;
    let client = gateway.client().await;
    let mut http = client.h1("app.localhost").await.unwrap();
    let waiting = tokio::spawn(async move { http.send(get("app.localhost", "/never")).await });
    let _socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
    until("the request to reach the application", SOON, || {
        std::future::ready((never.requests().len() == 1).then_some(()))
    })
    .await;
    let start = Instant::now();
    gateway.terminate();
    gateway.end().await;
    assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
    assert!(!matches!(waiting.await.unwrap(), Ok(answer) if answer.status == 200));
}
