//! Promise: what goes on for long or comes by the thousand leaves no trace: slow clients cost no more than their buffers
//! and nobody's time, and a day of connections leaves memory and file descriptors as they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::client::{Client, get, request, zeros};
use crate::harness::h2::{self, RawH2, flag, kind};
use crate::harness::load::{Load, Plan, Report};
use crate::harness::{Gateway, LATER, RustOrigin, SOON, heavy, until, within};

const YAML: &str = "
sites: [{hosts: [app.localhost], upstream: \"http://127.0.0.1:@origin@\"}]
";

/// What a slow client does. The first two never come to TLS, so that most of the test is not spent on
/// handshakes.
#[derive(Clone, Copy)]
enum Slow {
    Silent,
    Hello,
    Head,
    Body,
    Frames,
}

use Slow::*;

/// How many of each: 5,000 together. TLS costs two cores that also run the clients some milliseconds a
/// connection in a build that is not optimised, so that there are fewer of those that get there.
const CROWD: &[(Slow, usize)] =
    &[(Silent, 1500), (Hello, 1500), (Head, 1000), (Body, 500), (Frames, 500)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_slow_clients_take_nobodys_time() {
    let _turn = heavy().await;
    let _ = rlimit::increase_nofile_limit(16_000);
    let (files, _) = rlimit::Resource::NOFILE.get().unwrap();
    let count: usize = CROWD.iter().map(|(_, count)| count).sum();
    assert!(files > count as u64 + 500, "{files} open files are too few for this test: ulimit -n");
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let limits = "limits: {handshake: 60s, request-head: 60s, request-body-rate: off, \
                  request-body-idle: 60s, response-rate: off}\n";
    gateway.set("origin", origin.port).start(&format!("{YAML}{limits}")).await;
    let client = gateway.client().await;
    let before = measured(&client).await;
    let rss = gateway.rss_kib();
    let crowd = crowd(&client).await;
    let open = until("all of them to be connected", LATER, async || {
        Some(gateway.metric("witgate_connections_open").await).filter(|open| *open >= 5000)
    });
    let open = open.await;
    // They stay alive by a byte now and then.
    let with = measured(&client).await;
    let per_client = gateway.rss_kib().saturating_sub(rss) * 1024 / open;
    println!(
        "{open} slow clients, {per_client} bytes each; median {:?} before, {:?} with them; p99 {:?}, \
         {:?}",
        before.quantile(0.5),
        with.quantile(0.5),
        before.quantile(0.99),
        with.quantile(0.99)
    );
    before.assert_flawless(200);
    with.assert_flawless(200);
    let ms = Duration::from_millis;
    assert!(with.quantile(0.5) < before.quantile(0.5) * 3 + ms(5), "{:?}", with.quantile(0.5));
    assert!(with.quantile(0.99) < before.quantile(0.99) * 5 + ms(50), "{:?}", with.quantile(0.99));
    // Of a build that is not optimised.
    assert!(per_client < 60_000, "{per_client} bytes for each slow client");
    drop(crowd);
    until("all of them to be gone", SOON, async || {
        (gateway.metric("witgate_connections_open").await < 20).then_some(())
    })
    .await;
}

/// The times of requests on connections of their own.
async fn measured(client: &Client) -> Report {
    let plan = Plan { h1: 2, h2: 1, streams: 2, fresh: 0, pause: Duration::from_millis(5) };
    let load = Load::start(client, "app.localhost", "/", plan, |answer| answer.status == 200).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.stop().await
}

/// Connects all slow clients, each a task that sends a byte a second.
async fn crowd(client: &Client) -> JoinSet<()> {
    let turns = Arc::new(tokio::sync::Semaphore::new(64));
    let connected = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for (slow, count) in CROWD {
        for _ in 0..*count {
            let (client, turns) = (client.clone(), Arc::clone(&turns));
            let connected = Arc::clone(&connected);
            crowd.spawn(async move {
                let turn = turns.acquire_owned().await.unwrap();
                let outcome = dawdle(&client, *slow, || {
                    connected.fetch_add(1, Ordering::Relaxed);
                    drop(turn);
                });
                // The gateway may not send any of them away while it is measured.
                if let Err(e) = outcome.await {
                    panic!("a slow client was sent away: {e}");
                }
            });
        }
    }
    let count: usize = CROWD.iter().map(|(_, count)| count).sum();
    until("the slow clients to connect", LATER, async || {
        (connected.load(Ordering::Relaxed) == count).then_some(())
    })
    .await;
    crowd
}

async fn dawdle(client: &Client, slow: Slow, connected: impl FnOnce()) -> std::io::Result<()> {
    let second = Duration::from_secs(1);
    if matches!(slow, Silent | Hello) {
        let mut stream = client.tcp().await?;
        if matches!(slow, Hello) {
            // The beginning of a record with a ClientHello of 512 bytes.
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await?;
        }
        connected();
        loop {
            tokio::time::sleep(second).await;
            if matches!(slow, Hello) {
                stream.write_all(&[0]).await?;
            }
        }
    }
    if matches!(slow, Frames) {
        let mut h2 = RawH2::connect(client, "app.localhost").await?;
        // A block of fields that does not end.
        h2.send(kind::HEADERS, 0, 1, &h2::get("app.localhost", "/")).await?;
        connected();
        loop {
            tokio::time::sleep(10 * second).await;
            h2.send(kind::CONTINUATION, 0, 1, &h2::block(&[("x", "y")])).await?;
        }
    }
    let mut stream = client.tls("app.localhost", &[b"http/1.1"]).await?;
    let start = match slow {
        Body => "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100000\r\n\r\n",
        _ => "GET / HTTP/1.1\r\nHost: app.localhost\r\nX-Slow: ",
    };
    stream.write_all(start.as_bytes()).await?;
    connected();
    loop {
        tokio::time::sleep(second).await;
        stream.write_all(b"x").await?;
    }
}

/// What comes in a day, every ten seconds one.
const DAY: usize = 8640;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_connections_leaves_no_trace() {
    let _turn = heavy().await;
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(&format!("{YAML}log: {{access: off}}\n")).await;
    let client = gateway.client().await;
    // Caches, tables and the allocator come to their size first.
    churn(&client, 0..DAY / 4).await;
    let (rss, fds) = settled(&gateway).await;
    let start = Instant::now();
    churn(&client, DAY / 4..DAY).await;
    let (rss_after, fds_after) = settled(&gateway).await;
    println!(
        "{} connections in {:?}: {rss} KiB then {rss_after} KiB, {fds} then {fds_after} files",
        DAY - DAY / 4,
        start.elapsed()
    );
    assert!(fds_after <= fds + 4, "{fds} files before, {fds_after} after");
    assert!(rss_after < rss + 8 * 1024, "{rss} KiB before, {rss_after} KiB after");
    assert_eq!(gateway.metric("witgate_buffered_bytes").await, 0);
    gateway.process().assert_running();
}

/// Memory and files once no connection is open.
async fn settled(gateway: &Gateway) -> (u64, usize) {
    until("all connections to end", SOON, async || {
        (gateway.metric("witgate_connections_open").await == 0).then_some(())
    })
    .await;
    (gateway.rss_kib(), gateway.fds())
}

async fn churn(client: &Client, numbers: std::ops::Range<usize>) {
    let mut tasks = JoinSet::new();
    for number in numbers {
        if tasks.len() >= 16 {
            tasks.join_next().await;
        }
        let client = client.clone();
        tasks.spawn(async move {
            let what = format!("connection {number}");
            within(&what, SOON, visit(&client, number)).await;
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
}

/// One connection of any kind, most of which end well.
async fn visit(client: &Client, number: usize) {
    let name = "app.localhost";
    match number % 12 {
        0 | 1 => {
            let mut http = client.h2(name).await.unwrap();
            assert_eq!(http.send(get(name, "/")).await.unwrap().status, 200);
            let sent = request("POST", name, "/", "").map(|_| zeros(20_000));
            assert_eq!(http.send(sent).await.unwrap().status, 200);
        }
        // Goes away without a word, in the middle of TLS, a head, a body, a response, a wait.
        2 => drop(client.tcp().await.unwrap()),
        3 => {
            let mut stream = client.tcp().await.unwrap();
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
            reset(stream);
        }
        4 => drop(sent(client, "GET / HTTP/1.1\r\nHost: app.lo").await),
        5 => {
            let head = "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 9999\r\n\r\nxxx";
            drop(sent(client, head).await);
        }
        6 => {
            let head = "GET /big?bytes=3000000 HTTP/1.1\r\nHost: app.localhost\r\n\r\n";
            let mut stream = sent(client, head).await;
            let mut piece = [0; 1000];
            let _ = stream.read(&mut piece).await;
        }
        7 => drop(sent(client, "GET /never HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await),
        8 => {
            let mut h2 = RawH2::connect(client, name).await.unwrap();
            let flags = flag::END_HEADERS | flag::END_STREAM;
            h2.send(kind::HEADERS, flags, 1, &h2::get(name, "/never")).await.unwrap();
            h2.send(kind::RST_STREAM, 0, 1, &8u32.to_be_bytes()).await.unwrap();
        }
        // What the gateway refuses, and what the server breaks off.
        9 => assert_eq!(client.get(name, "/../").await.status, 400),
        10 => {
            let mut http = client.h1(name).await.unwrap();
            assert!(http.send(get(name, "/half")).await.is_err());
        }
        _ => assert_eq!(client.get(name, "/").await.status, 200),
    }
}

async fn sent(client: &Client, text: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = client.tls("app.localhost", &[b"http/1.1"]).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Ends a connection by a reset.
fn reset(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
