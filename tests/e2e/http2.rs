//! Promise: HTTP/1.1 and HTTP/2 towards clients, HTTP/1.1 and h2c towards upstreams, in every
//! combination, with trailers, many streams and connections that are kept.

use crate::harness::client::{get, request, with};
use crate::harness::h2::{self, RawH2, flag, frame, kind};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin, SOON, within};

const YAML: &str = "
sites:
  - hosts: [h1.localhost]
    routes: [{upstream: h1}]
  - hosts: [h2c.localhost]
    routes: [{upstream: h2c}]
upstreams:
  h1: http://127.0.0.1:@h1@
  h2c: h2c://127.0.0.1:@h2c@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_meets_every_other() {
    let (h1, h2c) = (RustOrigin::h1().await, RustOrigin::h2c().await);
    let mut gateway = Gateway::new();
    gateway.set("h1", h1.port).set("h2c", h2c.port).start(YAML).await;
    let client = gateway.client().await;
    for (name, upstream) in [("h1.localhost", "HTTP/1.1"), ("h2c.localhost", "HTTP/2")] {
        let connections = [client.h1(name).await.unwrap(), client.h2(name).await.unwrap()];
        for mut http in connections {
            let post = with(request("POST", name, "/a%20b?c=d&e", "text"), "x-field", "value");
            let answer = http.send(post).await.unwrap();
            let seen = answer.json();
            assert_eq!(seen["version"], upstream);
            assert_eq!(seen["method"], "POST");
            assert_eq!(seen["target"], "/a%20b?c=d&e");
            assert_eq!(seen["body"], "text");
            assert_eq!(field(&seen, "x-field"), ["value"]);
            let host = field(&seen, "host").first().cloned();
            let host = host.or(seen["authority"].as_str().map(str::to_owned));
            assert_eq!(host.as_deref(), Some(name));

            let trailers = with(get(name, "/trailers"), "te", "trailers");
            let answer = http.send(trailers).await.unwrap();
            let trailers = answer.trailers.expect("trailers");
            assert_eq!(trailers["x-checksum"], "abc", "{name} {:?}", answer.version);

            let answer = http.send(get(name, "/big?bytes=2000000")).await.unwrap();
            assert_eq!(answer.body.len(), 2_000_000);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_share_one_connection() {
    let (h1, h2c) = (RustOrigin::h1().await, RustOrigin::h2c().await);
    let mut gateway = Gateway::new();
    gateway.set("h1", h1.port).set("h2c", h2c.port).start(YAML).await;
    let client = gateway.client().await;
    for name in ["h1.localhost", "h2c.localhost"] {
        let http = client.h2(name).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100 {
            let mut stream = http.stream();
            let path = format!("/slow?ms={}", 100 + number);
            tasks.spawn(async move {
                let answer = stream.send(get(name, &path)).await.unwrap();
                assert_eq!(answer.json()["target"], path);
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    }
    assert!(h2c.connections() <= 4, "h2c made {} connections", h2c.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_connections_are_kept() {
    let (h1, h2c) = (RustOrigin::h1().await, RustOrigin::h2c().await);
    let mut gateway = Gateway::new();
    gateway.set("h1", h1.port).set("h2c", h2c.port).start(YAML).await;
    let client = gateway.client().await;
    for name in ["h1.localhost", "h2c.localhost"] {
        let mut http = client.h1(name).await.unwrap();
        for _ in 0..50 {
            assert_eq!(http.send(get(name, "/")).await.unwrap().status, 200);
        }
    }
    assert!(h1.connections() <= 4, "h1 made {} connections", h1.connections());
    assert!(h2c.connections() <= 4, "h2c made {} connections", h2c.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_response_does_not_hold_up_a_small_one() {
    const LARGE: usize = 30_000_000;
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("h1", origin.port).set("h2c", origin.port).start(YAML).await;
    let client = gateway.client().await;
    let mut h2 = RawH2::connect(&client, "h1.localhost").await.unwrap();
    // All the room that there can be.
    let settings = [&[0, 4][..], &(i32::MAX as u32).to_be_bytes()].concat();
    h2.send(kind::SETTINGS, 0, 0, &settings).await.unwrap();
    h2.send(kind::WINDOW_UPDATE, 0, 0, &1_000_000_000u32.to_be_bytes()).await.unwrap();
    let ends = flag::END_HEADERS | flag::END_STREAM;
    let large = h2::get("h1.localhost", &format!("/big?bytes={LARGE}"));
    let small = h2::get("h1.localhost", "/big?bytes=100000");
    let requests = [frame(kind::HEADERS, ends, 1, &large), frame(kind::HEADERS, ends, 3, &small)];
    h2.send_all(&requests.concat()).await.unwrap();
    let (mut bytes, mut ended) = ([0, 0], Vec::new());
    while ended.len() < 2 {
        let frame = within("data", SOON, h2.next()).await.expect("a frame");
        if frame.kind == kind::DATA {
            bytes[usize::from(frame.stream == 3)] += frame.payload.len();
            if frame.flags & flag::END_STREAM != 0 {
                ended.push((frame.stream, bytes[0]));
            }
        }
    }
    assert_eq!(bytes, [LARGE, 100_000]);
    assert!(ended[0].0 == 3 && ended[0].1 < LARGE, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_ends_with_a_word() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = format!("{YAML}limits: {{keepalive: 500ms}}\n");
    gateway.set("h1", origin.port).set("h2c", origin.port).start(&yaml).await;
    let client = gateway.client().await;
    let mut h2 = RawH2::connect(&client, "h1.localhost").await.unwrap();
    let ends = flag::END_HEADERS | flag::END_STREAM;
    h2.send(kind::HEADERS, ends, 1, &h2::get("h1.localhost", "/slow?ms=800")).await.unwrap();
    let mut seen = Vec::new();
    while let Some(frame) = within("the end", SOON, h2.next()).await {
        match frame.kind {
            kind::DATA => seen.push("answered".to_owned()),
            kind::GOAWAY => seen.push(format!("goaway {:?}", frame.payload)),
            kind::PING => h2.send(kind::PING, 1, 0, &frame.payload).await.unwrap(),
            _ => {}
        }
    }
    // What is open is no idling. The first word takes all that is on its way, the last names what it was.
    let words = ["goaway [127, 255, 255, 255, 0, 0, 0, 0]", "goaway [0, 0, 0, 1, 0, 0, 0, 0]"];
    assert_eq!(seen, ["answered", words[0], words[1]]);
}
