//! Promise: interim responses reach clients while the server still works, and a body that is announced
//! with `Expect: 100-continue` is sent when the server wants it, and not when it does not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::harness::client::{request, with};
use crate::harness::h2::{self, Ending, RawH2, flag, kind};
use crate::harness::{Gateway, SOON, port, within};

const YAML: &str = "
sites: [{hosts: [app.localhost], upstream: \"http://127.0.0.1:@app@\"}]
";

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\
                    connection: x-hop\r\nx-hop: 1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that does what the path says, and goes on when the test lets it.
struct Server {
    port: u16,
    go_on: Arc<Notify>,
    /// Whether the body was there before the server wanted it.
    was_early: Arc<std::sync::atomic::AtomicBool>,
}

async fn server() -> Server {
    let listener = TcpListener::bind(("127.0.0.1", port())).await.unwrap();
    let server = Server {
        port: listener.local_addr().unwrap().port(),
        go_on: Arc::default(),
        was_early: Arc::default(),
    };
    let (go_on, was_early) = (Arc::clone(&server.go_on), Arc::clone(&server.was_early));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (go_on, was_early) = (Arc::clone(&go_on), Arc::clone(&was_early));
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = act(&mut stream, &head, &path, &go_on, &was_early).await;
            });
        }
    });
    server
}

async fn act(
    stream: &mut TcpStream,
    head: &str,
    path: &str,
    go_on: &Notify,
    was_early: &std::sync::atomic::AtomicBool,
) -> std::io::Result<()> {
    let mut body = [0; 5];
    match path {
        "/hints" => {
            stream.write_all(HINT.as_bytes()).await?;
            stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await?;
            go_on.notified().await;
        }
        "/flood" => {
            for _ in 0..1000 {
                stream.write_all(HINT.as_bytes()).await?;
            }
        }
        "/go" => {
            assert!(head.to_lowercase().contains("\r\nexpect: 100-continue\r\n"), "{head}");
            let early = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut body));
            was_early.store(early.await.is_ok(), std::sync::atomic::Ordering::Relaxed);
            go_on.notified().await;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.read_exact(&mut body).await?;
        }
        "/no" => {
            let no = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
            stream.write_all(no).await?;
            let early = stream.read(&mut body).await?;
            was_early.store(early > 0, std::sync::atomic::Ordering::Relaxed);
            go_on.notify_one();
            return Ok(());
        }
        _ => {
            stream.read_exact(&mut body).await?;
        }
    }
    stream.write_all(OK.as_bytes()).await
}

/// A head as text, its end included.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match within("a head", SOON, stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn served() -> (Server, Gateway) {
    let server = server().await;
    let mut gateway = Gateway::new();
    gateway.set("app", server.port).start(YAML).await;
    (server, gateway)
}

fn post(path: &str, version: &str) -> String {
    format!("POST {path} HTTP/{version}\r\nhost: app.localhost\r\ncontent-length: 5\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_before_the_response() {
    let (server, gateway) = served().await;
    let client = gateway.client().await;
    let mut stream = client.tls("app.localhost", &[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET /hints HTTP/1.1\r\nhost: app.localhost\r\n\r\n").await.unwrap();
    let hint = head(&mut stream).await;
    assert!(hint.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{hint}");
    assert!(hint.contains("link: </a.css>; rel=preload") && !hint.contains("x-hop"), "{hint}");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 102 Processing\r\n\r\n"));
    server.go_on.notify_one();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let mut body = [0; 2];
    stream.read_exact(&mut body).await.unwrap();

    // A server that cannot stop is heard for a while only.
    stream.write_all(b"GET /flood HTTP/1.1\r\nhost: app.localhost\r\n\r\n").await.unwrap();
    let mut hints = 0;
    while head(&mut stream).await.starts_with("HTTP/1.1 103") {
        hints += 1;
    }
    assert!((1..=16).contains(&hints), "{hints}");
    // Clients that may not know them get none.
    let mut stream = client.tls("app.localhost", &[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET /flood HTTP/1.0\r\nhost: app.localhost\r\n\r\n").await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let mut h2 = client.h2("app.localhost").await.unwrap();
    let answer = h2.send(request("GET", "app.localhost", "/flood", "")).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_come_over_http2() {
    let (server, gateway) = served().await;
    let client = gateway.client().await;
    let mut h2 = RawH2::connect(&client, "app.localhost").await.unwrap();
    // A body that waits for the word to go on, which is the server's to say.
    let head = h2::block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "app.localhost"),
        (":path", "/go"),
        ("content-length", "5"),
        ("expect", "100-continue"),
    ]);
    h2.send(kind::HEADERS, flag::END_HEADERS, 1, &head).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(300), h2.ending(1)).await;
    assert!(silence.is_err(), "nobody has said that the body is wanted: {silence:?}");
    server.go_on.notify_one();
    assert_eq!(within("the word", SOON, h2.ending(1)).await, Ending::Status(100));
    h2.send(kind::DATA, flag::END_STREAM, 1, b"12345").await.unwrap();
    assert_eq!(within("the response", SOON, h2.ending(1)).await, Ending::Status(200));
    assert!(!server.was_early.load(std::sync::atomic::Ordering::Relaxed));

    let ends = flag::END_HEADERS | flag::END_STREAM;
    h2.send(kind::HEADERS, ends, 3, &h2::get("app.localhost", "/hints")).await.unwrap();
    let hint = loop {
        let frame = within("a hint", SOON, h2.next()).await.expect("a frame");
        if frame.kind == kind::HEADERS {
            break frame;
        }
    };
    assert_eq!((hint.flags, hint.stream), (flag::END_HEADERS, 3));
    let text = String::from_utf8_lossy(&hint.payload).into_owned();
    assert!(text.contains("103") && text.contains("</a.css>; rel=preload"), "{text:?}");
    assert!(!text.contains("x-hop") && !text.contains("connection"), "{text:?}");
    assert_eq!(within("the next", SOON, h2.ending(3)).await, Ending::Status(102));
    server.go_on.notify_one();
    assert_eq!(within("the response", SOON, h2.ending(3)).await, Ending::Status(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_over_http3() {
    let (server, gateway) = served().await;
    let connection = quic(&gateway).await;
    // Control stream with empty settings (RFC 9114, section 6.2.1).
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    // GET https :path :authority by the static table of QPACK (RFC 9204, appendix A).
    let mut fields = vec![0, 0, 0xc0 | 17, 0xc0 | 23];
    for (index, value) in [(1, "/hints"), (0, "app.localhost")] {
        fields.extend([0x50 | index, value.len() as u8]);
        fields.extend(value.as_bytes());
    }
    send.write_all(&[&[1, fields.len() as u8], &*fields].concat()).await.unwrap();
    send.finish().unwrap();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&25) {
        let (kind, payload) = within("a frame", SOON, frame(&mut receive)).await;
        assert_eq!(kind, 1, "HEADERS");
        // `:status` comes first: 24 is 103, 25 is 200, and others are spelled out.
        statuses.push(payload[2] & 0x3f);
        if statuses.len() == 2 {
            server.go_on.notify_one();
        }
    }
    assert_eq!((statuses.len(), statuses[0]), (3, 24), "{statuses:?}");
}

async fn quic(gateway: &Gateway) -> quinn::Connection {
    let pem = gateway.local_root().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    let to = ([127, 0, 0, 1], gateway.https).into();
    within("QUIC", SOON, endpoint.connect(to, "app.localhost").unwrap()).await.unwrap()
}

/// A frame of HTTP/3: its type and payload, both shorter than 16 KiB.
async fn frame(stream: &mut quinn::RecvStream) -> (u64, Vec<u8>) {
    let mut number = async || {
        let mut first = [0];
        stream.read_exact(&mut first).await.unwrap();
        match first[0] >> 6 {
            0 => u64::from(first[0]),
            1 => {
                let mut second = [0];
                stream.read_exact(&mut second).await.unwrap();
                u64::from(first[0] & 0x3f) << 8 | u64::from(second[0])
            }
            _ => panic!("a long frame"),
        }
    };
    let (kind, length) = (number().await, number().await);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.unwrap();
    (kind, payload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_waits_for_the_servers_word() {
    let (server, gateway) = served().await;
    let client = gateway.client().await;
    let early = || server.was_early.load(std::sync::atomic::Ordering::Relaxed);
    let open = || client.tls("app.localhost", &[b"http/1.1"]);

    // The client waits, and hears from the server itself.
    let mut stream = open().await.unwrap();
    let ask = format!("{}expect: 100-Continue\r\n\r\n", post("/go", "1.1"));
    stream.write_all(ask.as_bytes()).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
    assert!(silence.is_err(), "nobody has said that the body is wanted: {silence:?}");
    server.go_on.notify_one();
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    assert!(!early());

    // A refusal comes before the body, which then is never sent on; the connection ends, since nobody
    // knows what comes next on it.
    let mut stream = open().await.unwrap();
    let ask = format!("{}expect: 100-continue\r\n\r\n", post("/no", "1.1"));
    stream.write_all(ask.as_bytes()).await.unwrap();
    let refusal = head(&mut stream).await;
    assert!(refusal.starts_with("HTTP/1.1 403"), "{refusal}");
    assert!(refusal.contains("connection: close"), "{refusal}");
    within("the server", SOON, server.go_on.notified()).await;
    assert!(!early(), "the body of a refused request was sent");

    // A server that says nothing gets the body after a second.
    let mut stream = open().await.unwrap();
    let ask = format!("{}expect: 100-continue\r\n\r\n", post("/mute", "1.1"));
    let start = Instant::now();
    stream.write_all(ask.as_bytes()).await.unwrap();
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(start.elapsed() > Duration::from_millis(900));
    stream.write_all(b"12345").await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));

    // A client that does not wait needs no word.
    let mut stream = open().await.unwrap();
    let ask = format!("{}expect: 100-continue\r\n\r\n12345", post("/mute", "1.1"));
    stream.write_all(ask.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));

    // Over HTTP/2 the server is asked as well.
    let mut h2 = client.h2("app.localhost").await.unwrap();
    let ask = with(request("POST", "app.localhost", "/go", "12345"), "expect", "100-continue");
    server.go_on.notify_one();
    assert_eq!(h2.send(ask).await.unwrap().status, 200);
    assert!(!early());
    let ask = with(request("POST", "app.localhost", "/no", "12345"), "expect", "100-continue");
    assert_eq!(h2.send(ask).await.unwrap().status, 403);
    within("the server", SOON, server.go_on.notified()).await;
    assert!(!early());
}
