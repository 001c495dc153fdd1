//! Promise: whatever a server does at whatever stage of an exchange, the client gets the right status, or
//! a broken body that it can tell from a whole one, within the deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::{Client, get, request, zeros};
use crate::harness::{Gateway, SOON, port, within};

/// What a server does to a connection after it has read a head, or before.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Takes the connection and reads nothing.
    HangAtOnce,
    CloseAtOnce,
    ResetAtOnce,
    /// Reads the head, then this.
    Hang,
    Close,
    Reset,
    /// Sends these bytes, then hangs, closes or resets.
    SendAndHang(&'static str),
    SendAndClose(&'static str),
    SendAndReset(&'static str),
    /// Sends a head, and these bytes a moment later.
    SendInTwo(&'static str, &'static str),
    /// Sends these bytes again and again.
    SendForEver(&'static str),
    /// Sends these bytes one by one, so slowly that no wait for a single one is long.
    Trickle(&'static str),
    /// Answers without having read more than the head, and ends the connection with the body unread.
    AnswerEarly(&'static str),
}

/// What the client sees.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sight {
    Status(u16),
    /// A head with this status and a body that breaks off.
    Broken(u16),
}

use Deed::*;
use Sight::*;

const CASES: &[(Deed, Sight)] = &[
    (HangAtOnce, Status(504)),
    (CloseAtOnce, Status(502)),
    (ResetAtOnce, Status(502)),
    (Hang, Status(504)),
    (Close, Status(502)),
    (Reset, Status(502)),
    (SendAndHang("HTTP/1.1 200 O"), Status(504)),
    (SendAndClose("HTTP/1.1 200 O"), Status(502)),
    (SendAndReset("HTTP/1.1 200 O"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nContent-Le"), Status(504)),
    (SendAndClose("HTTP/1.1 200 OK\r\nContent-Le"), Status(502)),
    (SendAndReset("HTTP/1.1 200 OK\r\nContent-Le"), Status(502)),
    (SendAndHang("HTTP/1.1 100 Continue\r\n\r\n"), Status(504)),
    (SendAndClose("HTTP/1.1 100 Continue\r\n\r\n"), Status(502)),
    (SendAndClose("\u{1}\u{2}\u{3}garbage"), Status(502)),
    (SendAndHang("SSH-2.0-OpenSSH_9.9\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nContent Length: 5\r\n\r\nhello"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 2000 OK\r\n\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), Broken(200)),
    (SendAndClose("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), Broken(200)),
    (SendAndReset("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), Broken(200)),
    (
        SendAndHang("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        Broken(200),
    ),
    (
        SendAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        Broken(200),
    ),
    (
        SendAndReset("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        Broken(200),
    ),
    // Broken from its first byte on: nothing has gone out yet.
    (SendAndHang("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), Status(502)),
    (SendInTwo("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "xyz\r\n"), Broken(200)),
    (
        SendAndHang("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"),
        Status(200),
    ),
    (SendAndReset("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), Status(204)),
    (SendForEver("HTTP/1.1 102 Processing\r\n\r\n"), Status(504)),
    (SendForEver("X"), Status(502)),
    (SendForEver("HTTP/1.1 200 OK\r\nX-Long: xxxxxxxxxxxxxxxxxxxx\r\n"), Status(502)),
    (
        Trickle("HTTP/1.1 200 OK\r\nX-Slow: and very slow it is, too slow for anyone\r\n"),
        Status(504),
    ),
    (
        AnswerEarly(
            "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        ),
        Status(413),
    ),
    (
        AnswerEarly("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
        Status(200),
    ),
    // What comes after a response is nobody's: no other request gets it.
    (
        SendAndHang(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n",
        ),
        Status(200),
    ),
    (SendAndHang("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"), Status(200)),
    (SendAndHang("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx"), Broken(200)),
    (SendAndHang("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), Status(502)),
    (
        SendAndHang(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        Status(502),
    ),
    (SendAndHang("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), Status(502)),
    (SendAndHang("HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"), Status(502)),
];

/// What a server that is spoken to in HTTP/2 does: each is bytes that it sends after the preface.
const CASES_H2: &[(Deed, Sight)] = &[
    (HangAtOnce, Status(504)),
    (CloseAtOnce, Status(502)),
    (ResetAtOnce, Status(502)),
    (SendAndClose("HTTP/1.1 400 Bad Request\r\n\r\n"), Status(502)),
    (SendAndHang(SETTINGS), Status(504)),
    (SendAndClose(SETTINGS), Status(502)),
    (SendAndReset(SETTINGS), Status(502)),
    // GOAWAY that has taken no stream; RST_STREAM; a frame that is too large; one on no stream.
    (SendInTwo(SETTINGS, "\0\0\u{8}\u{7}\0\0\0\0\0\0\0\0\0\0\0\0\u{2}"), Status(502)),
    (
        SendInTwo(
            SETTINGS,
            "\0\0\u{4}\u{3}\0\0\0\0\u{1}\0\0\0\u{2}\0\0\u{8}\u{7}\0\0\0\0\0\0\0\0\u{1}\0\0\0\u{2}",
        ),
        Status(502),
    ),
    (SendInTwo(SETTINGS, "\u{7f}\0\0\0\0\0\0\0\u{1}"), Status(502)),
    (SendInTwo(SETTINGS, "\0\0\u{1}\0\0\0\0\0\0x"), Status(502)),
    // A block of fields that is none.
    (SendInTwo(SETTINGS, "\0\0\u{1}\u{1}\u{4}\0\0\0\u{1}\u{7f}"), Status(502)),
];

/// An empty SETTINGS frame.
const SETTINGS: &str = "\0\0\0\u{4}\0\0\0\0\0";

/// A server that does the same to every connection.
async fn server(deed: Deed) -> (u16, tokio::task::JoinHandle<()>) {
    let port = port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(misbehave(stream, deed));
        }
    });
    (port, task)
}

async fn misbehave(mut stream: TcpStream, deed: Deed) {
    if !matches!(deed, HangAtOnce | CloseAtOnce | ResetAtOnce) {
        read_head(&mut stream).await;
    }
    if let SendAndHang(text) | SendAndClose(text) | SendAndReset(text) = deed {
        let _ = stream.write_all(text.as_bytes()).await;
        // What was sent arrives before the reset.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let SendForEver(text) = deed {
        while stream.write_all(text.as_bytes()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
    if let Trickle(text) = deed {
        for byte in text.bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    if let AnswerEarly(text) = deed {
        let _ = stream.write_all(text.as_bytes()).await;
        // What was sent arrives before the reset that unread bytes cause.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let SendInTwo(head, rest) = deed {
        let _ = stream.write_all(head.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = stream.write_all(rest.as_bytes()).await;
    }
    match deed {
        HangAtOnce | Hang | SendAndHang(_) | SendInTwo(..) => std::future::pending().await,
        CloseAtOnce | Close | SendAndClose(_) | SendForEver(_) | Trickle(_) | AnswerEarly(_) => {}
        ResetAtOnce | Reset | SendAndReset(_) => {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
}

async fn seen(client: &Client, host: &str, body: Option<usize>, is_h2: bool) -> Sight {
    let mut http = match is_h2 {
        true => client.h2(host).await.unwrap(),
        false => client.h1(host).await.unwrap(),
    };
    let request = match body {
        None => get(host, "/"),
        Some(bytes) => request("POST", host, "/", "").map(|_| zeros(bytes)),
    };
    let what = format!("{host}, a body of {body:?}, over HTTP/{}", if is_h2 { 2 } else { 1 });
    let response = match within(&what, SOON, http.open(request)).await {
        Ok(response) => response,
        Err(error) => panic!("{host}: no response: {error:?}"),
    };
    let status = response.status().as_u16();
    match within(&what, SOON, crate::harness::client::Answer::read(response)).await {
        Ok(_) => Status(status),
        Err(_) => Broken(status),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_has_its_status_within_its_deadline() {
    every(CASES, "http").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_has_every_failure_of_a_server_that_speaks_http2() {
    every(CASES_H2, "h2c").await;
}

async fn every(table: &'static [(Deed, Sight)], scheme: &str) {
    let mut servers = Vec::new();
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (index, (deed, _)) in table.iter().enumerate() {
        let (port, task) = server(*deed).await;
        servers.push(task);
        sites += &format!("  - {{hosts: [c{index}.localhost], upstream: u{index}}}\n");
        upstreams += &format!(
            "  u{index}: {{servers: [\"{scheme}://127.0.0.1:{port}\"], \
             timeouts: {{response: 500ms, idle: 500ms}}}}\n"
        );
    }
    let mut gateway = Gateway::new();
    gateway.start(&format!("sites:\n{sites}upstreams:\n{upstreams}")).await;
    let client = Arc::new(gateway.client().await);
    let mut cases = tokio::task::JoinSet::new();
    for (index, (deed, expected)) in table.iter().copied().enumerate() {
        let client = Arc::clone(&client);
        cases.spawn(async move {
            let host = format!("c{index}.localhost");
            let mut wrong = Vec::new();
            for (body, is_h2) in [(None, false), (None, true), (Some(100_000), true)] {
                let start = Instant::now();
                let sight = seen(&client, &host, body, is_h2).await;
                let took = start.elapsed();
                if sight != expected || took > Duration::from_secs(4) {
                    wrong.push(format!(
                        "{deed:?} (body {body:?}, h2 {is_h2}): {sight:?} after {took:?}, \
                         not {expected:?}"
                    ));
                }
            }
            wrong
        });
    }
    let wrong = cases.join_all().await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for server in servers {
        server.abort();
    }
}
