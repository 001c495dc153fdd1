//! Promise: nobody takes the gateway from the others, neither by being slow nor by asking for much. Who does is sent
//! away, counted, and named in the log.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::harness::client::{Client, get};
use crate::harness::h2::{self, Ending, RawH2, flag, kind};
use crate::harness::{Gateway, RustOrigin, SOON, port, until, within};

const YAML: &str = "
sites: [{hosts: [app.localhost], upstream: \"http://127.0.0.1:@origin@\"}]
";

async fn served(limits: &str) -> (RustOrigin, Gateway, Client) {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(&format!("{YAML}limits: {limits}\n")).await;
    let client = gateway.client().await;
    (origin, gateway, client)
}

async fn h1(client: &Client) -> TlsStream<TcpStream> {
    client.tls("app.localhost", &[b"http/1.1"]).await.unwrap()
}

/// Sends a piece of a body every so often, until something comes back or all is sent.
async fn trickle(client: &Client, piece: usize, pieces: usize) -> String {
    let mut stream = h1(client).await;
    let length = piece * pieces;
    let head =
        format!("POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        for _ in 0..pieces {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if writer.write_all(&vec![b'x'; piece]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await
    };
    let mut answer = vec![0; 1024];
    let reading = async {
        let bytes = reader.read(&mut answer).await.unwrap_or_default();
        String::from_utf8_lossy(&answer[..bytes]).into_owned()
    };
    tokio::select! {
        answer = within("an answer to a trickle", SOON, reading) => answer,
        () = sending => unreachable!("it never ends"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_trickles_is_not_waited_for() {
    let (_origin, gateway, client) = served("{request-body-rate: 2KB, rate-grace: 500ms}").await;
    let mark = gateway.mark();
    let (slow, fast) = tokio::join!(trickle(&client, 20, 100), trickle(&client, 1000, 20));
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert!(fast.starts_with("HTTP/1.1 200 "), "{fast}");
    let mut h2 = RawH2::connect(&client, "app.localhost").await.unwrap();
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "app.localhost"),
        (":path", "/"),
    ];
    h2.send(kind::HEADERS, flag::END_HEADERS, 1, &h2::block(&fields)).await.unwrap();
    let ending = within("the end of a stream", SOON, h2.ending(1)).await;
    assert_eq!(ending, Ending::Status(408));
    assert_eq!(gateway.metric("witgate_refused_total{reason=\"slow_request\"}").await, 2);
    gateway.logged(mark, &["request-body-rate", "127.0.0.1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_is_taken_too_slowly_ends() {
    let (_origin, gateway, client) = served("{response-rate: 1MB, rate-grace: 500ms}").await;
    let mark = gateway.mark();
    // More than the buffers of the kernel hold.
    let mut slow = h1(&client).await;
    slow.write_all(b"GET /big?bytes=060000000 HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        .await
        .unwrap();
    let mut h2 = RawH2::connect(&client, "app.localhost").await.unwrap();
    let flags = flag::END_HEADERS | flag::END_STREAM;
    let block = h2::get("app.localhost", "/big?bytes=60000000");
    h2.send(kind::HEADERS, flags, 1, &block).await.unwrap();
    let slow_path = "/big?bytes=060000000";
    let slow_h1 = async {
        let mut piece = [0; 1000];
        let mut all = 0;
        while let Ok(bytes @ 1..) = slow.read(&mut piece).await {
            all += bytes;
            // Once it has ended, what the kernel holds may come as it likes.
            let is_over = gateway.access().iter().any(|record| record["path"] == slow_path);
            if !is_over {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        all
    };
    // It never says that there is room for more than the first 64 KiB.
    let slow_h2 = async {
        let mut ending = h2.ending(1).await;
        while ending == Ending::Status(200) {
            ending = h2.ending(1).await;
        }
        ending
    };
    let fast = async { client.get("app.localhost", "/big?bytes=20000000").await.body.len() };
    let all = async { tokio::join!(slow_h1, slow_h2, fast) };
    let (slow_h1, slow_h2, fast) = within("the ends of slow responses", SOON, all).await;
    assert!(slow_h1 < 60_000_000, "{slow_h1}");
    assert!(matches!(slow_h2, Ending::Reset(_)), "{slow_h2:?}");
    assert_eq!(fast, 20_000_000);
    assert_eq!(gateway.metric("witgate_refused_total{reason=\"slow_response\"}").await, 2);
    gateway.logged(mark, &["response-rate", "127.0.0.1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_no_more_connections_than_allowed() {
    let (_origin, gateway, client) = served("{connections-per-address: 3}").await;
    let mark = gateway.mark();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.h1("app.localhost").await.unwrap());
    }
    assert!(client.h1("app.localhost").await.is_err());
    let other = client.clone().from("127.0.0.2");
    assert_eq!(other.get("app.localhost", "/").await.status, 200);
    gateway.logged(mark, &["connections-per-address", "127.0.0.1"]).await;
    assert!(gateway.metric("witgate_refused_total{reason=\"address\"}").await >= 1);
    for mut http in open {
        assert_eq!(http.send(get("app.localhost", "/")).await.unwrap().status, 200);
    }
    until("a place to be free", SOON, async || client.h1("app.localhost").await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_slow_sides_is_bounded() {
    let (_origin, gateway, client) =
        served("{buffers: 1MiB, response-rate: off, response-idle: 60s}").await;
    let mark = gateway.mark();
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
    let mut slow = Vec::new();
    // Neither reads.
    for _ in 0..60 {
        let mut stream = h1(&client).await;
        let request = b"GET /big?bytes=60000000 HTTP/1.1\r\nHost: app.localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        slow.push(stream);
    }
    let mut h2 = RawH2::connect(&client, "app.localhost").await.unwrap();
    let flags = flag::END_HEADERS | flag::END_STREAM;
    for stream in 0..100 {
        let block = h2::get("app.localhost", "/big?bytes=1000000");
        if h2.send(kind::HEADERS, flags, 2 * stream + 1, &block).await.is_err() {
            break;
        }
    }
    let shed = until("requests to be shed", SOON, async || {
        let mut http = client.h1("app.localhost").await.ok()?;
        let answer = http.send(get("app.localhost", "/")).await.ok()?;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(!shed.header("retry-after").is_empty(), "{shed:?}");
    assert!(gateway.metric("witgate_buffered_bytes").await > 1 << 20);
    assert!(gateway.metric("witgate_refused_total{reason=\"buffers\"}").await >= 1);
    gateway.logged(mark, &["limits.buffers"]).await;
    drop((slow, h2));
    until("the bytes to be given back", SOON, async || {
        let answer = client.h1("app.localhost").await.ok()?.send(get("app.localhost", "/")).await;
        (answer.ok()?.status == 200).then_some(())
    })
    .await;
    until("nothing to wait", SOON, async || {
        (gateway.metric("witgate_buffered_bytes").await == 0).then_some(())
    })
    .await;
}

/// Floods a connection with frames until it ends; how many went out.
async fn flooded(client: &Client, first: &[u8], frames: impl Fn(u32) -> Vec<u8>) -> u32 {
    let mut h2 = RawH2::connect(client, "app.localhost").await.unwrap();
    h2.send_all(first).await.unwrap();
    let (mut reader, mut writer) = h2.split();
    // Somebody who floods may well read what comes.
    let reading = tokio::spawn(async move {
        let mut sink = vec![0; 1 << 16];
        while matches!(reader.read(&mut sink).await, Ok(1..)) {}
    });
    let mut count = 0;
    let flood = async {
        while count < FLOOD {
            let batch: Vec<u8> = (count..count + 100).flat_map(&frames).collect();
            if writer.write_all(&batch).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            count += 100;
        }
    };
    within("a flood to be stopped", SOON, flood).await;
    within("the end of a flooded connection", SOON, reading).await.unwrap();
    count
}

/// The frames with a number.
type Frames = Box<dyn Fn(u32) -> Vec<u8>>;

/// Many more than the buffers of the kernel hold.
const FLOOD: u32 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_the_connection() {
    let (origin, mut gateway, client) = served("{request-head-size: 16KiB}").await;
    let rss = gateway.rss_kib();
    let request = |stream: u32| {
        let flags = flag::END_HEADERS | flag::END_STREAM;
        h2::frame(kind::HEADERS, flags, stream, &h2::get("app.localhost", "/never"))
    };
    let reset = |stream: u32| h2::frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let floods: [(&str, Vec<u8>, Frames); 8] = [
        ("pings", vec![], Box::new(|_| h2::frame(kind::PING, 0, 0, &[0; 8]))),
        (
            "settings",
            vec![],
            Box::new(|_| h2::frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ),
        ("priorities", vec![], Box::new(|_| h2::frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1]))),
        ("windows", request(1), Box::new(|_| h2::frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))),
        ("unknown frames", vec![], Box::new(|_| h2::frame(99, 0, 0, &[0; 4]))),
        (
            "empty data",
            h2::frame(kind::HEADERS, flag::END_HEADERS, 1, &h2::get("app.localhost", "/never")),
            Box::new(|_| h2::frame(kind::DATA, 0, 1, &[])),
        ),
        (
            "rapid resets",
            vec![],
            Box::new(move |n| [request(2 * n + 1), reset(2 * n + 1)].concat()),
        ),
        (
            "continuations",
            h2::frame(kind::HEADERS, 0, 1, &h2::get("app.localhost", "/")),
            Box::new(|_| h2::frame(kind::CONTINUATION, 0, 1, &h2::block(&[("x", "y")]))),
        ),
    ];
    for (what, first, frames) in floods {
        let count = flooded(&client, &first, frames).await;
        assert!(count < FLOOD / 2, "{what}: {count} went out");
        assert_eq!(client.get("app.localhost", "/").await.status, 200, "{what}");
    }
    assert!(gateway.metric("witgate_refused_total{reason=\"flood\"}").await >= 5);
    let seen = origin.requests().len();
    assert!(seen < 1000, "{seen} requests reached the server");
    gateway.process().assert_running();
    let grown = gateway.rss_kib().saturating_sub(rss);
    assert!(grown < 30_000, "{grown} KiB more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_block_of_many_fields_is_refused() {
    // One large field goes into the table of the connection, then each byte asks for it once more.
    let (origin, gateway, client) = served("{request-head-size: 16KiB}").await;
    let rss = gateway.rss_kib();
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut h2 = RawH2::connect(&client, "app.localhost").await.unwrap();
        let mut block = h2::get("app.localhost", "/bomb");
        block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        block.extend(vec![b'y'; 127 + 0x21 + (0x1e << 7)]);
        block.extend(vec![0xbe; 12_000]);
        let flags = flag::END_HEADERS | flag::END_STREAM;
        h2.send(kind::HEADERS, flags, 1, &block).await.unwrap();
        let ending = within("the end of a bomb", SOON, h2.ending(1)).await;
        let is_refused = matches!(ending, Ending::Reset(_) | Ending::GoAway(_) | Ending::Closed)
            || ending == Ending::Status(431);
        assert!(is_refused, "{ending:?}");
        open.push(h2);
    }
    let grown = gateway.rss_kib().saturating_sub(rss);
    assert!(grown < 20_000, "{grown} KiB more");
    assert!(origin.requests().is_empty());
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_survives_without_file_descriptors() {
    // A server that takes connections and holds them.
    let held = port();
    let listener = TcpListener::bind(("127.0.0.1", held)).await.unwrap();
    let holding = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            all.push(stream);
        }
    });
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = "
sites:
  - hosts: [app.localhost]
    routes: [{path: /held, upstream: \"http://127.0.0.1:@held@\"}, {upstream: \"http://127.0.0.1:@origin@\"}]
";
    gateway.set("origin", origin.port).set("held", held).descriptors(220).start(yaml).await;
    let client = gateway.client().await;
    let mark = gateway.mark();
    let mut kept = client.h1("app.localhost").await.unwrap();
    assert_eq!(kept.send(get("app.localhost", "/")).await.unwrap().status, 200);
    // Each of these takes one for itself and one for the server.
    let mut open = Vec::new();
    for _ in 0..140 {
        let Ok(stream) = tokio::time::timeout(Duration::from_millis(500), client.tcp()).await
        else {
            break;
        };
        open.push(stream.unwrap());
    }
    let mut busy = Vec::new();
    for _ in 0..100 {
        let connecting = client.tls("app.localhost", &[b"http/1.1"]);
        let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_millis(500), connecting).await
        else {
            break;
        };
        let _ = stream.write_all(b"GET /held HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
        busy.push(stream);
    }
    gateway.logged(mark, &["limits.connections"]).await;
    // Who is there is served on.
    let start = Instant::now();
    assert_eq!(kept.send(get("app.localhost", "/")).await.unwrap().status, 200);
    assert!(start.elapsed() < SOON / 4);
    drop((open, busy));
    until("new connections to be served", SOON, async || {
        let mut http = client.h1("app.localhost").await.ok()?;
        http.send(get("app.localhost", "/")).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
    holding.abort();
    gateway.process().assert_running();
}
