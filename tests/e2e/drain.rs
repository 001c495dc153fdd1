//! Promise: on SIGTERM the gateway takes nothing new, ends what is open, and then ends itself.

use std::time::Instant;

use crate::harness::client::get;
use crate::harness::h2::{self, Frame, RawH2, flag, kind};
use crate::harness::websocket::WebSocket;
use crate::harness::{Gateway, Origin, RustOrigin, SOON, output, until, within};

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
async fn a_client_of_http2_is_told_in_two_steps() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).set("drain", "20s").start(YAML).await;
    let client = gateway.client().await;
    let mut h2 = RawH2::connect(&client, "app.localhost").await.unwrap();
    let ends = flag::END_HEADERS | flag::END_STREAM;
    let ask = |path| h2::get("app.localhost", path);
    h2.send(kind::HEADERS, ends, 1, &ask("/slow?ms=1500")).await.unwrap();
    until("the slow request to reach the application", SOON, || {
        std::future::ready((origin.requests().len() == 1).then_some(()))
    })
    .await;
    gateway.terminate();
    let mut go_aways = Vec::new();
    let mut answered = Vec::new();
    while let Some(frame) = within("the end", SOON, h2.next()).await {
        let Frame { kind, flags, stream, payload } = frame;
        match kind {
            kind::GOAWAY => go_aways.push(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            kind::PING if flags == 0 => {
                // This one was on its way before the client knew; the next was not.
                h2.send(kind::HEADERS, ends, 3, &ask("/slow?ms=1")).await.unwrap();
                h2.send(kind::PING, 1, 0, &payload).await.unwrap();
                h2.send(kind::HEADERS, ends, 5, &ask("/")).await.unwrap();
            }
            kind::DATA if flags & flag::END_STREAM != 0 => answered.push(stream),
            kind::RST_STREAM => assert_eq!((stream, &payload[..]), (5, &[0, 0, 0, 7][..])),
            _ => {}
        }
    }
    assert_eq!(go_aways, [i32::MAX as u32, 3]);
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
    drop(h2);
    assert!(gateway.end().await.success());
    assert_eq!(origin.requests().len(), 2);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_and_for_how_long_can_be_seen_to_the_end() {
    let never = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", never.port).set("drain", "3s").start(YAML).await;
    let client = gateway.client().await;
    let mut waiting = tokio::task::JoinSet::new();
    for mut http in
        [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
    {
        waiting.spawn(async move { http.send(get("app.localhost", "/slow?ms=20000")).await });
    }
    until("the requests to reach the application", SOON, || {
        std::future::ready((never.requests().len() == 2).then_some(()))
    })
    .await;
    let socket = gateway.store().join("admin.sock").display().to_string();
    let status = async || -> serde_json::Value {
        let curl = ["--silent", "--unix-socket", &socket, "http://witgate/status"];
        serde_json::from_slice(&output("curl", &curl, SOON).await.stdout).unwrap_or_default()
    };
    let before = status().await;
    assert_eq!((&before["open"]["count"], &before["draining_seconds"]), (&2.into(), &().into()));
    gateway.terminate();
    let during = until("the status of a drain", SOON, async || {
        let status = status().await;
        status["draining_seconds"].is_number().then_some(status)
    })
    .await;
    let open = during["open"]["oldest"].as_array().unwrap();
    let mut what: Vec<&str> = open.iter().filter_map(|one| one["what"].as_str()).collect();
    what.sort_unstable();
    assert_eq!(what, ["HTTP/1.1", "HTTP/2"], "{during}");
    for one in open {
        assert_eq!(one["server_name"], "app.localhost", "{one}");
        assert!(one["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{one}");
        assert!(one["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{one}");
    }
    gateway.end().await;
    let log = gateway.log();
    assert!(
        log.contains("drain time is over") && log.contains("HTTP/2 app.localhost for"),
        "{log}"
    );
    waiting.abort_all();
}
