//! Promise: a client that goes away at any stage of an exchange costs that exchange alone: what it held is given back, the
//! server's connection is let go, and the next client is served.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::{Client, get};
use crate::harness::h2::{self, RawH2, flag, kind};
use crate::harness::{Gateway, RustOrigin, SOON, port, until, within};

/// Where the client goes away.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Of TCP and TLS.
    Connected,
    Hello,
    Garbage,
    HandshakeDone,
    /// Of HTTP/1.1: these bytes, and nothing more.
    Sent(&'static str),
    /// These bytes, and some of the response is read.
    Read(&'static str),
    /// Of HTTP/2: frames up to here.
    H2Preface,
    H2HalfHead,
    H2Head,
    H2HalfFrame,
    H2Body,
    H2Waiting,
    H2Reading,
    H2GoAway,
}

/// How it goes away.
#[derive(Clone, Copy, Debug)]
enum Way {
    Close,
    Reset,
    /// It says that it sends no more, and goes a moment later.
    Half,
}

use Stage::*;
use Way::*;

const STAGES: &[Stage] = &[
    Connected,
    Hello,
    Garbage,
    HandshakeDone,
    Sent("G"),
    Sent("GET / HTTP/1.1\r\nHo"),
    Sent("GET / HTTP/1.1\r\nHost: app.localhost\r\n"),
    Sent("POST /held HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100\r\n\r\n"),
    Sent("POST /held HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100\r\n\r\nhalf"),
    Sent("POST /held HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n"),
    Sent("POST /held HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5"),
    Sent("POST /held HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"),
    Sent(
        "POST /held HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ),
    Sent(
        "POST /held HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\r\n",
    ),
    Sent(
        "POST /held HTTP/1.1\r\nHost: app.localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ),
    Sent("GET /held HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
    Sent("GET /held HTTP/1.1\r\nHost: app.localhost\r\n\r\nGET /held HTTP/1.1\r\nHo"),
    Read("GET /big?bytes=9000000 HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
    Read("GET /stall HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
    Read("GET /events HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
    H2Preface,
    H2HalfHead,
    H2Head,
    H2HalfFrame,
    H2Body,
    H2Waiting,
    H2Reading,
    H2GoAway,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_costs_its_exchange_alone() {
    let origin = RustOrigin::h1().await;
    let holder = Holder::start().await;
    let mut gateway = Gateway::new();
    // One request that is not given back for each stage would fill the server's place.
    let yaml = "
sites:
  - hosts: [app.localhost]
    routes: [{path: /held, upstream: held}, {upstream: origin}]
upstreams:
  held: {servers: [\"http://127.0.0.1:@held@\"], circuit: {requests: 60}, eject: off}
  origin: {servers: [\"http://127.0.0.1:@origin@\"], circuit: {requests: 60}, eject: off}
";
    gateway.set("origin", origin.port).set("held", holder.port).start(yaml).await;
    let client = gateway.client().await;
    for round in 0..3 {
        let mut tasks = tokio::task::JoinSet::new();
        for stage in STAGES {
            for way in [Close, Reset, Half] {
                let client = client.clone();
                tasks.spawn(async move {
                    let what = format!("{stage:?} {way:?}");
                    within(&what, SOON, leave(&client, *stage, way)).await;
                });
            }
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.unwrap();
        }
        let what = format!("everything to be given back after round {round}");
        until(&what, SOON, async || {
            let open = gateway.metric("witgate_connections_open").await;
            (open == 0 && holder.open() == 0).then_some(())
        })
        .await;
        assert_eq!(client.get("app.localhost", "/").await.status, 200, "round {round}");
    }
    assert_eq!(gateway.metric("witgate_buffered_bytes").await, 0);
    gateway.process().assert_running();
}

async fn leave(client: &Client, stage: Stage, way: Way) {
    let name = "app.localhost";
    match stage {
        Connected | Hello | Garbage => {
            let mut stream = client.tcp().await.unwrap();
            let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
            match stage {
                Hello => stream.write_all(&hello).await.unwrap(),
                Garbage => stream.write_all(b"\x16\x03\x01\x00\x05nonsense").await.unwrap(),
                _ => {}
            }
            go(stream, way).await;
        }
        HandshakeDone | Sent(_) | Read(_) => {
            let mut stream = client.tls(name, &[b"http/1.1"]).await.unwrap();
            if let Sent(text) | Read(text) = stage {
                stream.write_all(text.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            if let Read(_) = stage {
                let mut some = [0; 100];
                assert!(stream.read(&mut some).await.unwrap() > 0);
            }
            go(stream.into_inner().0, way).await;
        }
        _ => over_h2(client, stage, way).await,
    }
}

async fn over_h2(client: &Client, stage: Stage, way: Way) {
    let name = "app.localhost";
    let mut h2 = RawH2::connect(client, name).await.unwrap();
    let end = flag::END_HEADERS | flag::END_STREAM;
    let get = |path| h2::get(name, path);
    let head = h2::frame(kind::HEADERS, flag::END_HEADERS, 1, &get("/held"));
    let frames = match stage {
        H2HalfHead => h2::frame(kind::HEADERS, 0, 1, &get("/held")),
        H2Head => head,
        H2HalfFrame => [head, vec![0, 0, 99, kind::DATA, 0, 0]].concat(),
        H2Body => [head, h2::frame(kind::DATA, 0, 1, b"half")].concat(),
        H2Waiting => h2::frame(kind::HEADERS, end, 1, &get("/held")),
        H2Reading => h2::frame(kind::HEADERS, end, 1, &get("/big?bytes=9000000")),
        H2GoAway => [
            h2::frame(kind::HEADERS, end, 1, &get("/held")),
            h2::frame(kind::GOAWAY, 0, 0, &[0; 8]),
        ]
        .concat(),
        _ => Vec::new(),
    };
    h2.send_all(&frames).await.unwrap();
    if let H2Reading = stage {
        h2.ending(1).await;
    }
    go(h2.into_tcp(), way).await;
}

/// Goes away once the gateway has had a moment to do what it was asked.
async fn go(mut stream: TcpStream, way: Way) {
    tokio::time::sleep(Duration::from_millis(30)).await;
    match way {
        Close => {}
        Reset => drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        Half => {
            let _ = stream.shutdown().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// A server that takes requests and never answers, and knows how many connections are open.
struct Holder {
    port: u16,
    open: std::sync::Arc<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Holder {
    async fn start() -> Self {
        let port = port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let open = std::sync::Arc::new(());
        let place = std::sync::Arc::downgrade(&open);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let place = place.upgrade();
                tokio::spawn(async move {
                    let _place = place;
                    let mut sink = [0; 4096];
                    while matches!(stream.read(&mut sink).await, Ok(1..)) {}
                });
            }
        });
        Self { port, open, task }
    }

    fn open(&self) -> usize {
        std::sync::Arc::strong_count(&self.open) - 1
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_lets_its_server_go() {
    let holder = Holder::start().await;
    let mut gateway = Gateway::new();
    let yaml = "sites: [{hosts: [app.localhost], upstream: \"http://127.0.0.1:@held@\"}]\n";
    gateway.set("held", holder.port).start(yaml).await;
    let client = gateway.client().await;
    let mut h2 = RawH2::connect(&client, "app.localhost").await.unwrap();
    let flags = flag::END_HEADERS | flag::END_STREAM;
    for stream in [1, 3, 5] {
        let block = h2::get("app.localhost", "/");
        h2.send(kind::HEADERS, flags, stream, &block).await.unwrap();
    }
    until("three requests to arrive", SOON, async || (holder.open() == 3).then_some(())).await;
    h2.send(kind::RST_STREAM, 0, 3, &8u32.to_be_bytes()).await.unwrap();
    until("one of them to be let go", SOON, async || (holder.open() == 2).then_some(())).await;
    // Over HTTP/1.1 it is the connection.
    let mut http = client.h1("app.localhost").await.unwrap();
    let waiting = http.open(get("app.localhost", "/"));
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    drop(http);
    until("its server to be let go", SOON, async || (holder.open() == 2).then_some(())).await;
}
