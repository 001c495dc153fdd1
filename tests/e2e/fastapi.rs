//! Promise: a FastAPI application on Uvicorn behind the gateway works as it does alone, and sees the
//! client's address and scheme.

use std::time::{Duration, Instant, SystemTime};

use http_body_util::BodyExt;
use serde_json::json;

use crate::harness::client::{Client, get, request, with, zeros};
use crate::harness::origin::field;
use crate::harness::websocket::{Frame, WebSocket};
use crate::harness::{Gateway, Http, Origin, SOON, heavy, until, within};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

/// The application behind the gateway, and a client that trusts the gateway's local CA.
async fn served() -> (Origin, Gateway, Client) {
    let origin = Origin::start().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(YAML).await;
    let client = gateway.client().await;
    client.certified("app.localhost", SOON).await;
    (origin, gateway, client)
}

/// One connection of each protocol.
async fn both(client: &Client) -> [Http; 2] {
    [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_statuses_and_cookies_pass() {
    let (_origin, _gateway, client) = served().await;
    for mut http in both(&client).await {
        let answer = http.send(get("app.localhost", "/json")).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), json!({"hello": "world", "text": "grüße", "list": [1, 2, 3]}));
        assert_eq!(answer.header("content-type"), "application/json");

        let post = request("POST", "app.localhost", "/json", r#"{"a": [1, "ü"]}"#);
        let post = with(post, "content-type", "application/json");
        let answer = http.send(post).await.unwrap();
        assert_eq!(answer.json(), json!({"received": {"a": [1, "ü"]}}));

        for status in [201, 204, 304, 404, 418, 503] {
            let path = format!("/status/{status}");
            let answer = http.send(get("app.localhost", &path)).await.unwrap();
            assert_eq!((answer.status, answer.header("x-from")), (status, "app"));
        }
        let answer = http.send(get("app.localhost", "/cookies")).await.unwrap();
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1; Path=/", "b=2; Path=/"]);
        let answer = http.send(request("HEAD", "app.localhost", "/download/10", "")).await.unwrap();
        assert!(answer.body.is_empty(), "{answer:?}");
        let answer = http.send(get("app.localhost", "/download/3000000")).await.unwrap();
        assert_eq!(answer.body.len(), 3_000_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_knows_scheme_host_and_client() {
    let (_origin, _gateway, client) = served().await;
    let client = client.from("127.0.0.2");
    for mut http in both(&client).await {
        let seen = http.send(get("app.localhost", "/seen?x=1")).await.unwrap().json();
        assert_eq!(seen["scheme"], "https");
        assert_eq!(seen["url"], "https://app.localhost/seen?x=1");
        assert_eq!(seen["host"], "app.localhost");
        assert_eq!(seen["client"], "127.0.0.2");
        assert_eq!(field(&seen, "x-forwarded-for"), ["127.0.0.2"]);
        let answer = http.send(get("app.localhost", "/redirect")).await.unwrap();
        assert_eq!(answer.status, 307);
        assert_eq!(answer.header("location"), "https://app.localhost/json");
    }
    let mut socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
    socket.text("who").await.unwrap();
    let Frame::Text(seen) = socket.read().await.unwrap() else { panic!("not a text frame") };
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!((&seen["scheme"], &seen["client"]), (&json!("wss"), &json!("127.0.0.2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_200_mb_do_not_stay_in_memory() {
    const BYTES: usize = 200_000_000;
    let _turn = heavy().await;
    let (_origin, gateway, client) = served().await;
    for mut http in both(&client).await {
        // Buffers that every connection has are there before the first measure.
        let mut small = request("PUT", "app.localhost", "/upload", "");
        *small.body_mut() = zeros(4_000_000);
        http.send(small).await.unwrap();
        let before = gateway.rss_kib();
        let mut upload = request("PUT", "app.localhost", "/upload", "");
        *upload.body_mut() = zeros(BYTES);
        let sending = within("200 MB", Duration::from_secs(120), async {
            let response = http.open(upload).await.unwrap();
            crate::harness::client::Answer::read(response).await.unwrap()
        });
        tokio::pin!(sending);
        let mut highest = before;
        let answer = loop {
            tokio::select! {
                answer = &mut sending => break answer,
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    highest = highest.max(gateway.rss_kib());
                }
            }
        };
        assert_eq!(answer.json()["bytes"], BYTES, "{answer:?}");
        let growth = highest.saturating_sub(before);
        assert!(growth < 20_000, "memory grew by {growth} KiB over {before} KiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upstream_slows_the_client_down() {
    // Back-pressure: an origin that reads nothing must stop the client after the buffers between
    // them are full, far below the size of the body.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gateway = Gateway::new();
    let port = listener.local_addr().unwrap().port();
    gateway.set("origin", port).start(YAML).await;
    let client = gateway.client().await;
    let mut http = client.h1("app.localhost").await.unwrap();
    let (sender, pieces) = tokio::sync::mpsc::channel(1);
    let mut upload = request("PUT", "app.localhost", "/", "");
    *upload.body_mut() = crate::harness::client::Pieces(pieces).boxed();
    let sending = tokio::spawn(async move { http.open(upload).await.map(|_| ()) });
    let (_held, _) = within("the upstream connection", SOON, listener.accept()).await.unwrap();
    let piece = bytes::Bytes::from(vec![0; 1 << 16]);
    let mut sent = 0_usize;
    let stuck = loop {
        let frame = Ok(hyper::body::Frame::data(piece.clone()));
        match tokio::time::timeout(Duration::from_secs(2), sender.send(frame)).await {
            Ok(Ok(())) => sent += piece.len(),
            Ok(Err(_)) => break false,
            Err(_) => break true,
        }
        assert!(sent < 100_000_000, "{sent} bytes went somewhere");
    };
    assert!(stuck, "the upload ended after {sent} bytes");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_sent_events_arrive_one_by_one() {
    let (_origin, _gateway, client) = served().await;
    for mut http in both(&client).await {
        let events = get("app.localhost", "/sse?count=5&every=0.5");
        let response = within("the head", SOON, http.open(events)).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let (mut body, mut arrived) = (response.into_body(), Vec::new());
        while let Some(frame) = within("an event", SOON, body.frame()).await {
            let data = frame.unwrap().into_data().unwrap();
            let text = String::from_utf8(data.to_vec()).unwrap();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            for event in text.split_terminator("\n\n") {
                let (_, data) = event.split_once("data: ").unwrap();
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                arrived.push((data["sent"].as_f64().unwrap(), now.as_secs_f64()));
            }
        }
        assert_eq!(arrived.len(), 5);
        for pair in arrived.windows(2) {
            let ((sent, arrived), (next, _)) = (pair[0], pair[1]);
            assert!(arrived < next, "sent {sent}, arrived {arrived}, after the next at {next}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_echo_ping_and_close() {
    let (_origin, _gateway, client) = served().await;
    let mut socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
    socket.text("grüße").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Text("grüße".to_owned()));
    let large: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    socket.binary(&large).await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Binary(large));
    socket.ping(b"are you there").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Pong(b"are you there".to_vec()));
    socket.close(1000, "done").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Close(1000, "done".to_owned()));
    socket.ended().await.unwrap();

    let mut socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
    socket.text("close").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Close(4001, "asked to".to_owned()));

    let refused = WebSocket::open(&client, "app.localhost", "/nothing-here").await;
    let head = refused.err().expect("there is no such WebSocket").to_string();
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_websocket_is_not_an_idle_response() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::new();
    let yaml = YAML.replace(
        "app: http://127.0.0.1:@origin@",
        "app: {servers: [\"http://127.0.0.1:@origin@\"], timeouts: {response: 2s, idle: 300ms}}",
    );
    gateway.set("origin", origin.port).start(&yaml).await;
    let client = gateway.client().await;
    let mut socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
    let start = Instant::now();
    // The idle time of a response has long passed when the next message is sent.
    until("a second of silence", SOON, || {
        std::future::ready((start.elapsed() > Duration::from_secs(1)).then_some(()))
    })
    .await;
    socket.text("still there").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Text("still there".to_owned()));
}
